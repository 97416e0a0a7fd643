//! Commands joined by pipes, with honest results: every stage has its status, and what a stage says is not lost.

use procession::Command;
use std::time::Duration;

fn main() -> Result<(), procession::Error> {
    let longest =
        Command::new("ls").arg("-S").arg("/usr/bin") | Command::new("grep").arg("a") | Command::new("head").arg("-3");
    println!("$ {longest}");
    let output = longest.timeout(Duration::from_secs(10)).output()?.check()?;
    print!("{output}");
    for stage in output.stages() {
        println!("{:<24} {}", stage.command(), stage.status());
    }

    // A failure in the middle is a failure, and says which stage it was.
    let broken = Command::shell("echo data")
        | Command::shell("cat; echo 'disk is full' >&2; exit 5")
        | Command::new("wc").arg("-l");
    println!("$ {broken}");
    match broken.check_output() {
        Ok(_) => println!("all is well"),
        Err(error) => println!("{error}\nand yet it printed {:?}", error.output().stdout_lossy()),
    }
    Ok(())
}
