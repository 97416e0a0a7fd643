//! A TCP server of several processes: all accept from one listening socket, which is an argument of each, and the kernel decides who gets
//! a connection. What a client says comes back in capitals.

use procession::ipc::{Descriptor, Process};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// A worker: knows no end. A thread for each client, so that one who says nothing holds nobody up.
fn serve(socket: Descriptor) {
    let listener = TcpListener::from(socket.into_owned_fd());
    // Errors are those of one client, who may have gone.
    for client in listener.incoming().flatten() {
        std::thread::spawn(|| answer(client));
    }
}

fn answer(client: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(&client);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        (&client).write_all(line.to_uppercase().as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// Calls the function with the address of a server of so many processes, and stops it then. The workers are daemons: if this process is killed,
/// so are they.
pub(crate) fn upper_server(workers: usize, whatever: impl FnOnce(SocketAddr) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let start = |_| Ok(Process::builder(serve, Descriptor::from(listener.try_clone()?)).daemon().start()?);
    let workers = (0..workers).map(start).collect::<io::Result<Vec<_>>>()?;
    let result = whatever(listener.local_addr()?);
    for mut worker in workers {
        worker.terminate()?;
        worker.wait()?;
    }
    result
}

fn main() -> io::Result<()> {
    upper_server(4, |address| {
        println!("listening on {address}");
        for line in ["hello", "and good bye"] {
            let mut server = TcpStream::connect(address)?;
            writeln!(server, "{line}")?;
            let mut answer = String::new();
            BufReader::new(server).read_line(&mut answer)?;
            print!("{line} -> {answer}");
        }
        Ok(())
    })
}
