//! Gives a child less than its parent has: another directory, no other descriptors, limits, and as root another user. All of it is
//! data and takes the fast path.

use procession::{Command, Resource};

fn main() -> Result<(), procession::Error> {
    let mut command = Command::shell("id; pwd; umask; ulimit -n; ls /proc/self/fd | wc -l")
        .current_dir("/")
        .umask(0o077)
        .limit(Resource::Nofile, 32, 32)
        .limit(Resource::Core, 0, 0)
        .setsid()
        .nice(5);
    if cfg!(target_os = "linux") {
        command = command.no_new_privileges().oom_score(500);
    }
    // Only root may become somebody else; the child gets that user's groups as well, and none of ours.
    let root = Command::new("id").arg("-u").check_output_text()?.trim() == "0";
    if root {
        command = command.user("nobody");
    }
    let output = command.output()?.check()?;
    print!("{output}");
    if let Some(usage) = output.usage() {
        println!("processor time {:?}, at most {} KiB of memory", usage.user + usage.system, usage.resident_max / 1024);
    }
    Ok(())
}
