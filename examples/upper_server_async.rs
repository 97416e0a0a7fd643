//! A TCP server on one thread that sends every line back in capitals, and five hundred clients at the same time on the same thread: a task costs
//! less than a kibibyte.

use procession::Error;
use procession::future::{Event, Watched, idle, try_scope};
use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// Sends a client's lines back until there are no more.
async fn serve(client: Watched<TcpStream>, lines: &Cell<usize>) -> io::Result<()> {
    let (mut waiting, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        waiting.extend_from_slice(&buffer[..count]);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            client.write_all(String::from_utf8_lossy(&line).to_uppercase().as_bytes()).await?;
            lines.set(lines.get() + 1);
        }
    }
}

/// Says something when all have come, and returns the answer.
async fn ask(server: SocketAddr, number: usize, all_are_there: &Event) -> io::Result<String> {
    let server = Watched::new(TcpStream::connect(server)?)?;
    all_are_there.wait().await;
    server.write_all(format!("client {number} says Straße\n").as_bytes()).await?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\n") {
        match server.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// How many lines were served, and the answers in the order of the clients.
pub(crate) fn upper_server(clients: usize) -> io::Result<(usize, Vec<String>)> {
    let listener = Watched::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)?;
    let address = listener.get_ref().local_addr()?;
    let (lines, all_are_there) = (Cell::new(0), Event::new());
    let answers = try_scope(|scope| {
        let inside = scope.clone();
        let (listener, lines, all_are_there) = (&listener, &lines, &all_are_there);
        let server = scope.spawn(async move {
            // An error is that of one client, who may have gone.
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    inside.spawn(serve(client, lines));
                }
            }
        });
        scope.block_on(async {
            let mut asking = Vec::new();
            for number in 0..clients {
                asking.push(scope.spawn(ask(address, number, all_are_there)));
                // To connect blocks when the listener has no room for more: it gets its turn.
                idle().await;
            }
            all_are_there.set();
            let mut answers = Vec::new();
            for task in asking {
                answers.push(task.await??);
            }
            // It would wait for more.
            server.kill();
            Ok::<_, Error>(answers)
        })?
    })?;
    Ok((lines.get(), answers))
}

fn main() -> io::Result<()> {
    let (served, answers) = upper_server(500)?;
    println!("{served} lines served, the last one: {}", answers.last().map_or("", |answer| answer.trim_end()));
    Ok(())
}
