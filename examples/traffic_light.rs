//! Cars wait at a light. It is an event: cars that come to a red one wait until it is set, cars that come to a green one go on.

use procession::Error;
use procession::ipc::{Event, Process, Semaphore};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Light {
    green: Event,
    /// A permit for each car that has come, so that the light can wait for cars.
    come: Semaphore,
}

fn car((light, name): (Light, String)) {
    if !light.green.is_set() {
        println!("{name} waits");
    }
    light.come.release(1).expect("not as many as that");
    light.green.wait();
    println!("{name} goes");
}

/// So many times red and green: cars come to the red light, and one more to the green one.
pub(crate) fn traffic_light(times: u32, cars: u32) -> Result<(), Error> {
    let light = Light { green: Event::new()?, come: Semaphore::new(0)? };
    for _ in 0..times {
        println!("red");
        let start = |number| Process::start(car, (light.clone(), format!("car {number}")));
        let mut waiting = (1..=cars).map(start).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..cars {
            light.come.acquire().forget();
        }
        println!("green");
        light.green.set();
        waiting.push(Process::start(car, (light.clone(), "a late car".to_owned()))?);
        for mut car in waiting {
            car.join()?;
        }
        light.green.clear();
        light.come.acquire().forget();
    }
    println!("red");
    Ok(())
}

fn main() -> Result<(), Error> {
    traffic_light(2, 3)
}
