//! Keeps house: arrows point down, unsafe stays where it belongs, the version has an entry in the log.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The order of `src/lib.rs`: a module uses only modules above it.
const ORDER: [&str; 30] = [
    "sys",
    "signal",
    "status",
    "deadline",
    "text",
    "entry",
    "explain",
    "output",
    "error",
    "trace",
    "stop",
    "pipe",
    "terminal",
    "command",
    "plan",
    "handle",
    "spawn",
    "machine",
    "filter",
    "tee",
    "course",
    "child",
    "communicate",
    "live",
    "pipeline",
    "converse",
    "set",
    "pool",
    "ipc",
    "future",
];

/// Unsafe blocks are in `sys`, and a method that is declared unsafe is no unsafe block.
const UNSAFE_ALLOWED: [&str; 2] = ["src/sys/", "src/ipc/word.rs"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The top module that a file of `src` belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").trim_end_matches("_absent").to_owned()
}

/// The modules that code names by `crate::module`.
fn uses(code: &str) -> BTreeSet<String> {
    let code = code.replace("$crate::", "");
    let after = code.split("crate::").skip(1);
    after
        .flat_map(|rest| {
            let names = match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap_or_default().split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            names.into_iter().map(first_word).collect::<Vec<_>>()
        })
        .collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn upward(module: &str, code: &str) -> Vec<String> {
    let place = |name: &str| ORDER.iter().position(|module| *module == name);
    let Some(own) = place(module) else { return vec![format!("{module} has no place in the order")] };
    let named = uses(code).into_iter();
    // A type that `lib.rs` re-exports has no place of its own: name its module instead.
    let misplaced = named.filter(|name| place(name).is_none_or(|other| other > own));
    misplaced.map(|name| format!("{module} uses crate::{name}")).collect()
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let module = module_of(&path);
        // One file turns an arrow round, for tests.
        if module != "lib" && !path.ends_with("communicate/block_awaited.rs") {
            wrong.extend(upward(&module, &code(&path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_upward_arrow_is_found() {
    assert_eq!(upward("signal", "use crate::child::Child;"), ["signal uses crate::child"]);
    assert_eq!(upward("signal", "use crate::{sys, plan::Plan};"), ["signal uses crate::plan"]);
    assert_eq!(upward("child", "use crate::Stop;"), ["child uses crate::Stop"]);
    assert_eq!(upward("nowhere", ""), ["nowhere has no place in the order"]);
    assert!(upward("child", "use crate::plan::Plan; crate::sys::fd::read()").is_empty());
}

#[test]
fn the_list_is_that_of_the_library() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<&str> = lib
        .lines()
        .map(|line| line.trim_start_matches("pub "))
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(modules, ORDER);
}

#[test]
fn unsafe_is_where_it_belongs() {
    for path in rust_files(&root().join("src")) {
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let code = code(&path);
        let blocks = code.matches("unsafe {").count() + code.matches("unsafe impl").count();
        assert!(
            blocks == 0 || UNSAFE_ALLOWED.iter().any(|place| shown.starts_with(place)),
            "{shown} has {blocks} unsafe blocks"
        );
    }
}

#[test]
fn files_say_what_they_decide_and_are_part_of_the_crate() {
    let lib = rust_files(&root().join("src"));
    for path in &lib {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("//!") || text.starts_with("#![doc"), "{} has no front comment", path.display());
    }
    for path in lib.iter().filter(|path| !path.ends_with("mod.rs") && !path.ends_with("lib.rs")) {
        let stem = path.file_stem().unwrap().to_string_lossy();
        let folder = path.parent().unwrap();
        let parents = [folder.join("mod.rs"), folder.join("lib.rs")];
        let declared = parents
            .iter()
            .filter_map(|parent| fs::read_to_string(parent).ok())
            .any(|text| text.contains(&format!("mod {stem};")) || text.contains(&format!("path = \"{stem}.rs\"")));
        assert!(declared, "{} is no part of the crate", path.display());
    }
}

#[test]
fn the_version_has_an_entry_in_the_log() {
    let log = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(log.lines().any(|line| line.starts_with(&heading)), "CHANGELOG.md has no {heading:?}");
}
