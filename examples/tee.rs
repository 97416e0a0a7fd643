//! One run, several readers: the terminal sees lines with a prefix, a file has all of it with the time, a second one the warnings
//! alone, and the program has the record.

use procession::{Clock, Command, Filter, Stream, Target};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("procession-tee-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (log, warnings) = (folder.join("build.log"), folder.join("warnings.log"));

    let build = Command::shell(
        "for file in parser lexer printer; do echo compiling $file; sleep 0.1; echo warning: $file is long >&2; done; echo done",
    );
    let output = build
        .timeout(Duration::from_secs(20))
        .tee(Target::stdout().prefix("build | "))
        .tee(Target::write(&log).timestamps(Clock::Utc))
        .tee_stderr(Target::write(&warnings).filter(Filter::map_lines(|line| line.to_ascii_uppercase())))
        .transcript()
        .output()?
        .check()?;

    println!("\nthe log:\n{}", std::fs::read_to_string(&log)?);
    println!("the warnings:\n{}", std::fs::read_to_string(&warnings)?);
    println!("the record: {} bytes of output, {} of errors", output.stdout().len(), output.stderr().len());
    for piece in output.transcript() {
        let name = if piece.stream() == Stream::Stdout { "out" } else { "err" };
        let unsure = if piece.is_simultaneous() { " (or before the last one)" } else { "" };
        println!("{:>5} ms {name}: {}{unsure}", piece.at().as_millis(), piece.text().trim_end());
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
