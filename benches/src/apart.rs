//! Measures one contestant in a process of its own, so that its peak of memory is its own: the program starts itself again.

use crate::own_cpu;
use std::time::{Duration, Instant};

/// The environment variable that tells such a process who it is.
const WHO: &str = "PROCESSION_BENCH";

/// What one such process measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The middle call, µs.
    pub wall: f64,
    /// Own processor time per call, µs.
    pub cpu: f64,
    /// The peak of resident memory above what it was before the first call, KiB.
    pub peak: f64,
}

/// The word that was given to [`measure`], in a process that was started by it.
pub fn asked() -> Option<String> {
    std::env::var(WHO).ok()
}

/// Starts this program again with a word, and returns what it tells.
///
/// # Panics
/// If it fails.
pub fn measure(word: &str) -> Sample {
    let numbers = numbers(word);
    let [wall, cpu, peak] = numbers[..] else { panic!("{word}: {numbers:?}") };
    Sample { wall, cpu, peak }
}

/// The same for a program that tells numbers of its own kind.
///
/// # Panics
/// If it fails.
pub fn numbers(word: &str) -> Vec<f64> {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output =
        command.args(std::env::args_os().skip(1)).env(WHO, word).stderr(std::process::Stdio::inherit()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{word}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// In such a process: makes the input, runs the work on it and checks what came out, `calls` times, and tells.
/// Only the work is timed.
pub fn tell<I, O>(calls: usize, make: impl Fn() -> I, work: impl Fn(I) -> O, check: impl Fn(O)) {
    if calls > 1 {
        check(work(make()));
    }
    let before_memory = status("VmRSS:");
    let (mut walls, mut cpu, mut peak) = (Vec::new(), Duration::ZERO, 0);
    for _ in 0..calls {
        let input = make();
        let cpu_before = own_cpu();
        let start = Instant::now();
        let output = work(input);
        walls.push(start.elapsed().as_secs_f64() * 1e6);
        cpu += own_cpu() - cpu_before;
        peak = status("VmHWM:");
        check(output);
    }
    let cpu = cpu.as_secs_f64() * 1e6 / calls as f64;
    println!("{} {cpu} {}", crate::median(&walls), peak.saturating_sub(before_memory));
}

/// A number of `/proc/self/status`, such as `VmHWM:`, in KiB, or `Threads:`.
///
/// # Panics
/// If there is none.
pub fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
