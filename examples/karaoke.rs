//! A stage with room for four: who wants to sing waits for a place on it. A semaphore counts the places.

use procession::Error;
use procession::ipc::{Barrier, Process, Semaphore, Value};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many may be on the stage, and how many a song is for.
const PLACES: u32 = 4;

#[derive(Clone, Serialize, Deserialize)]
struct Stage {
    places: Semaphore,
    /// A song begins when all who sing it are there.
    song: Barrier,
    singing: Value<u32>,
    most: Value<u32>,
}

fn guest((stage, name): (Stage, String)) {
    let place = stage.places.acquire();
    stage.most.fetch_max(stage.singing.fetch_add(1) + 1);
    println!("{name} comes on stage");
    stage.song.wait().expect("all go on singing");
    std::thread::sleep(Duration::from_millis(50));
    println!("{name} goes");
    stage.singing.fetch_sub(1);
    drop(place);
}

/// The most that were on the stage at a time, when so many songs are sung by different people each.
pub(crate) fn karaoke(songs: u32) -> Result<u32, Error> {
    let stage = Stage {
        places: Semaphore::bounded(PLACES)?,
        song: Barrier::new(PLACES)?,
        singing: Value::new(0)?,
        most: Value::new(0)?,
    };
    let guests = (1..=songs * PLACES).map(|number| Process::start(guest, (stage.clone(), format!("guest {number}"))));
    for mut guest in guests.collect::<Result<Vec<_>, _>>()? {
        guest.join()?;
    }
    Ok(stage.most.get())
}

fn main() -> Result<(), Error> {
    println!("at most {} at a time", karaoke(3)?);
    Ok(())
}
