//! A file that appears as a whole or not at all: written beside its place and moved there.

use crate::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes it, in the place of what was there. A device or a pipe is written to and stays.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let there = fs::metadata(path).ok();
    let written = match &there {
        Some(there) if !there.is_file() => {
            OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes))
        }
        _ => replace(path, there.as_ref(), bytes),
    };
    written.map_err(|error| Error::io("write", error).path(path))
}

fn replace(path: &Path, there: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    // A link stays one.
    let place = if there.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
    let part = beside(&place)?;
    let moved = write_part(&part, there, bytes).and_then(|()| fs::rename(&part, &place));
    if moved.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    moved
}

fn write_part(part: &Path, there: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(part)?;
    if let Some(there) = there {
        file.set_permissions(there.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name that nobody else uses, in the same folder.
fn beside(place: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = place.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(place.with_file_name(part))
}
