//! A DNS server small enough for an example: one thread, a handful of records, the loopback device.
//!
//! It decides what is answered to which question. The shape of the packets it leaves to `simple-dns`. It speaks UDP alone: no
//! answer here comes near 512 bytes, so no client has a reason to come back over TCP.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use simple_dns::rdata::{A, MX, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

/// All that the responder knows. The addresses are from the block reserved for documentation (RFC 5737): nobody lives there.
const RECORDS: &[(&str, Data)] = &[
    ("python.org", Data::Address(Ipv4Addr::new(192, 0, 2, 1))),
    ("python.org", Data::MailExchange(50, "mail.python.org")),
    ("www.python.org", Data::Address(Ipv4Addr::new(192, 0, 2, 80))),
    ("mail.python.org", Data::Address(Ipv4Addr::new(192, 0, 2, 25))),
];

/// What a record says about its name.
enum Data {
    Address(Ipv4Addr),
    MailExchange(u16, &'static str),
}

/// Seconds for which a client may remember an answer.
const TIME_TO_LIVE: u32 = 60;

/// The thread looks up this often even if nobody asks, should the packet that wakes it be lost.
const NAP: Duration = Duration::from_secs(1);

/// A running server. Dropping it ends its thread and closes its port.
pub(crate) struct Responder {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Starts to answer on 127.0.0.1, on a port that the kernel chooses.
    pub(crate) fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(NAP))?;
        let address = socket.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("dns".into()).spawn({
            let ending = Arc::clone(&ending);
            move || serve(&socket, &ending)
        })?;
        Ok(Self { address, ending, thread: Some(thread) })
    }

    /// Where to ask.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // An empty packet wakes the thread at once. If it cannot be sent, the thread wakes by itself after a nap.
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(&[], self.address));
        if let Some(thread) = self.thread.take() {
            // The thread's panic has already been printed, and a drop must not panic again.
            let _ = thread.join();
        }
    }
}

/// Answers one question after the other until told to end.
fn serve(socket: &UdpSocket, ending: &AtomicBool) {
    let mut packet = [0; 512];
    while !ending.load(Ordering::Acquire) {
        match socket.recv_from(&mut packet) {
            Ok((length, client)) => {
                if let Some(reply) = reply_to(&packet[..length]) {
                    // A client that has gone away is no loss: a DNS client asks again if it still cares.
                    let _ = socket.send_to(&reply, client);
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// The reply to one packet; none to what is not a question.
fn reply_to(packet: &[u8]) -> Option<Vec<u8>> {
    let query = Packet::parse(packet).ok()?;
    let [question] = query.questions.as_slice() else {
        return None;
    };
    if query.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let known: Vec<_> = records().filter(|record| record.name == question.qname).collect();

    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if known.is_empty() {
        *reply.rcode_mut() = RCODE::NameError;
    }
    // A known name without a record of this type (AAAA, say) gets an empty answer, which is not an error.
    reply.answers = known
        .into_iter()
        .filter(|record| record.match_qtype(question.qtype) && record.match_qclass(question.qclass))
        .collect();
    reply.questions = query.questions;
    reply.build_bytes_vec_compressed().ok()
}

/// The table, in the words of the DNS crate.
fn records() -> impl Iterator<Item = ResourceRecord<'static>> {
    RECORDS.iter().map(|(name, data)| {
        let data = match *data {
            Data::Address(address) => RData::A(A::from(address)),
            Data::MailExchange(preference, exchange) => {
                RData::MX(MX { preference, exchange: Name::new_unchecked(exchange) })
            }
        };
        ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, TIME_TO_LIVE, data)
    })
}
