//! A dict that several processes write to: it lives in a process of a manager, and each of the others has a proxy of it.

use procession::Error;
use procession::ipc::manager::Dict;
use procession::ipc::{Manager, Process};
use std::collections::HashMap;

/// Looks at some numbers and notes for each how it ends. Two processes may come to the same end, so looking and noting are one call.
fn note_ends((ends, numbers): (Dict<u64, u32>, Vec<u64>)) -> Result<(), String> {
    for number in numbers {
        let add = |map: &mut HashMap<u64, u32>, end: u64| *map.entry(end).or_default() += 1;
        ends.update(add, number % 10).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// How often each last digit comes in the first so many squares, found out by four processes.
pub(crate) fn manager_dict(count: u64) -> Result<Vec<(u64, u32)>, Error> {
    let manager = Manager::start()?;
    let ends = manager.dict::<u64, u32>()?;
    let shares = (0..4).map(|share| (1..=count).filter(|n| n % 4 == share).map(|n| n * n).collect::<Vec<_>>());
    let started = shares.map(|numbers| Process::start(note_ends, (ends.clone(), numbers)));
    for mut process in started.collect::<Result<Vec<_>, _>>()? {
        process.join()?.expect("the manager lives as long as this function");
    }
    let mut ends: Vec<_> = ends.to_map()?.into_iter().collect();
    ends.sort_unstable();
    Ok(ends)
}

fn main() -> Result<(), Error> {
    for (end, count) in manager_dict(100)? {
        println!("{count:3} squares end with {end}");
    }
    Ok(())
}
