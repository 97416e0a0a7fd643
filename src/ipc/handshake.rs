//! How both sides of a connection over TCP prove that they know the same key, without showing it. Pure: random bytes are passed in. Decides what
//! is signed; leaves to the [listener](super::listener) and to whoever connects how the messages get through.
//!
//! | who | sends | |
//! |---|---|---|
//! | listens | challenge | 32 random bytes |
//! | connects | proof | 32 random bytes, HMAC-SHA-256(key, domain, "connects", both random) |
//! | listens | verdict | HMAC-SHA-256(key, domain, "listens", both random) |
//!
//! Who listens proves nothing to a stranger. The role is part of what is signed, so that what one side has said is worth nothing when it is said
//! back; so is the version of the format, so that nobody in the middle can make two sides believe in an older one.

use super::wire::VERSION;
use crate::error::Error;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// The length of random bytes, and of what is made from the key.
pub(crate) const LENGTH: usize = 32;
pub(crate) type Nonce = [u8; LENGTH];

/// A key that is shorter could be found by trying: whoever listens in has all that this takes.
const KEY_MIN: usize = 16;
const DOMAIN: &[u8] = b"procession connection over tcp";

/// What both sides know.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

/// Shows nothing of it.
impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key")
    }
}

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Result<Key, Error> {
        if bytes.len() < KEY_MIN {
            let text = format!(
                "a key of {} bytes can be guessed: {KEY_MIN} are the least, 32 random ones are good",
                bytes.len()
            );
            return Err(Error::invalid(text));
        }
        // Every length is a key.
        Hmac::new_from_slice(bytes).map(Key).map_err(|error| Error::invalid(format!("the key: {error}")))
    }

    fn signed(&self, role: Role, listens: &Nonce, connects: &Nonce) -> Hmac<Sha256> {
        let role: &[u8] = match role {
            Role::Listens => b"listens",
            Role::Connects => b"connects",
        };
        let mut signed = self.0.clone();
        for part in [DOMAIN, &[VERSION], role, listens, connects] {
            // With its length, so that no two lists of parts are the same bytes.
            signed.update(&(part.len() as u64).to_le_bytes());
            signed.update(part);
        }
        signed
    }
}

#[derive(Clone, Copy)]
enum Role {
    Listens,
    Connects,
}

/// The proof of who connects: what it sends, after the challenge.
pub(crate) fn proof(key: &Key, challenge: &Nonce, own: &Nonce) -> Vec<u8> {
    let signature = key.signed(Role::Connects, challenge, own).finalize().into_bytes();
    [&own[..], &signature].concat()
}

/// What who listens says to a proof: its own, or nothing if this one is wrong.
pub(crate) fn verdict(key: &Key, challenge: &Nonce, proof: &[u8]) -> Option<Vec<u8>> {
    let (theirs, signature) = proof.split_first_chunk::<LENGTH>()?;
    // In constant time.
    key.signed(Role::Connects, challenge, theirs).verify_slice(signature).ok()?;
    Some(key.signed(Role::Listens, challenge, theirs).finalize().into_bytes().to_vec())
}

/// Whether the verdict comes from somebody who knows the key.
pub(crate) fn is_right(key: &Key, challenge: &Nonce, own: &Nonce, verdict: &[u8]) -> bool {
    key.signed(Role::Listens, challenge, own).verify_slice(verdict).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32]).unwrap()
    }

    const CHALLENGE: Nonce = [1; LENGTH];
    const OWN: Nonce = [2; LENGTH];

    #[test]
    fn who_knows_the_key_is_believed() {
        let proof = proof(&key(7), &CHALLENGE, &OWN);
        let verdict = verdict(&key(7), &CHALLENGE, &proof).unwrap();
        assert!(is_right(&key(7), &CHALLENGE, &OWN, &verdict));
    }

    #[test]
    fn everything_else_is_not() {
        let good = proof(&key(7), &CHALLENGE, &OWN);
        assert_eq!(verdict(&key(8), &CHALLENGE, &good), None);
        assert_eq!(verdict(&key(7), &OWN, &good), None, "said again to another challenge");
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(verdict(&key(7), &CHALLENGE, &bad), None);
            assert_eq!(verdict(&key(7), &CHALLENGE, &good[..place]), None);
        }
        let said = verdict(&key(7), &CHALLENGE, &good).unwrap();
        assert!(!is_right(&key(8), &CHALLENGE, &OWN, &said));
        assert!(!is_right(&key(7), &OWN, &OWN, &said));
        assert!(!is_right(&key(7), &CHALLENGE, &CHALLENGE, &said));
        assert!(!is_right(&key(7), &CHALLENGE, &OWN, &[]));
    }

    #[test]
    fn what_was_said_is_worth_nothing_when_it_is_said_back() {
        // Somebody without the key gives a challenge back as its own, and the proof as its verdict.
        let said = proof(&key(7), &CHALLENGE, &OWN);
        assert!(!is_right(&key(7), &CHALLENGE, &OWN, &said[LENGTH..]));
        // Or answers with the nonces of the two changed over.
        let mirrored = [&CHALLENGE[..], &said[LENGTH..]].concat();
        assert_eq!(verdict(&key(7), &OWN, &mirrored), None);
    }

    #[test]
    fn short_keys_are_refused_and_none_is_shown() {
        assert_eq!(
            Key::new(b"secret").unwrap_err().to_string(),
            "a key of 6 bytes can be guessed: 16 are the least, 32 random ones are good"
        );
        assert_eq!(format!("{:?}", key(7)), "Key");
    }

    /// What version 1 signs, worked out by another implementation (Python's hmac). It must never change.
    #[test]
    fn the_proof_is_these_bytes() {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let proof = proof(&key(7), &CHALLENGE, &OWN);
        assert_eq!(hexadecimal(&proof[LENGTH..]), "2c8428d2362f36961fe4094ca0ad6f0935dce457287e4611d2bd4fd04c0e2bbb");
        assert_eq!(
            hexadecimal(&verdict(&key(7), &CHALLENGE, &proof).unwrap()),
            "b66328749621ded0df15f1b14018138cd0f4748aab1d322495a923ca0071f37c"
        );
    }
}
