//! Values to bytes and back, with the descriptors in them. Data only: nothing that arrives can make a program run.

use super::passing;
use crate::error::{Error, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::os::fd::OwnedFd;

/// A value as bytes, and the descriptors that belong to it.
pub(crate) type Encoded = (Vec<u8>, Vec<OwnedFd>);

/// Writes a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, Error> {
    let mut bytes = Vec::new();
    let descriptors = encode_behind(value, &mut bytes)?;
    Ok((bytes, descriptors))
}

/// Appends a value to bytes. The descriptors that belong to it; in case of an error nothing is appended.
pub(crate) fn encode_behind<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<Vec<OwnedFd>, Error> {
    let (written, descriptors) = passing::gathering(|| encode_into(value, bytes));
    written.map(|()| descriptors)
}

/// Appends a value to bytes, where descriptors cannot follow. In case of an error nothing is appended.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let before = bytes.len();
    let written = passing::explaining(|| postcard::to_extend(value, Behind(bytes)).map(drop));
    written.map_err(|(error, why)| {
        bytes.truncate(before);
        let what = why.unwrap_or_else(|| error.to_string());
        Error::invalid(format!("a value of the type {} cannot be sent: {what}", short_name::<T>()))
    })
}

/// Bytes of somebody else's to which more are appended.
struct Behind<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Behind<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

/// The value that all these bytes are.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<T, Error> {
    let read = || passing::explaining(|| postcard::take_from_bytes::<T>(bytes));
    let wrong = |what: String| {
        Error::new(ErrorKind::Decode).detail(format!("{} bytes are no {}: {what}", bytes.len(), short_name::<T>()))
    };
    match passing::handing_out(descriptors, read) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(wrong(format!("{} bytes are left over", rest.len()))),
        Err((error, why)) => Err(wrong(why.unwrap_or_else(|| error.to_string()))),
    }
}

/// The name of a type without the paths in it, for people, and for two programs that mean the same.
pub(crate) fn short_name<T: ?Sized>() -> String {
    without_paths(type_name::<T>())
}

fn without_paths(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    for character in name.chars() {
        short.push(character);
        if short.ends_with("::") {
            let path = |character: char| !(character.is_alphanumeric() || "_:{}#".contains(character));
            let start = short.rfind(path).map_or(0, |at| at + short[at..].chars().next().map_or(1, char::len_utf8));
            short.truncate(start);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[test]
    fn names_lose_their_paths() {
        for (name, short) in [
            ("u32", "u32"),
            ("alloc::string::String", "String"),
            ("(u8, alloc::vec::Vec<my_crate::message::Message>)", "(u8, Vec<Message>)"),
            ("&[core::option::Option<a::B>; 3]", "&[Option<B>; 3]"),
            ("größe::Maß", "Maß"),
            ("[a::main::{{closure}}::Local]", "[Local]"),
        ] {
            assert_eq!(without_paths(name), short);
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_said() {
        #[derive(Debug, Serialize, Deserialize, PartialEq)]
        struct Job {
            name: String,
            size: u32,
        }
        let job = Job { name: "one".into(), size: 300 };
        let (bytes, descriptors) = encode(&job).unwrap();
        assert_eq!(decode::<Job>(&bytes, descriptors).unwrap(), job);
        let text = |error: Error| error.to_string();
        assert_eq!(
            text(decode::<Job>(&bytes[..3], Vec::new()).unwrap_err()),
            "3 bytes are no Job: Hit the end of buffer, expected more data"
        );
        assert_eq!(text(decode::<u8>(&bytes, Vec::new()).unwrap_err()), "6 bytes are no u8: 5 bytes are left over");
        assert!(decode::<Vec<u64>>(&[0xff, 0xff, 0xff, 0xff, 0x0f], Vec::new()).is_err());
        let (descriptor, mut bytes) = (passing::Descriptor::from(std::io::pipe().unwrap().0), b"before".to_vec());
        let error = text(encode_into(&("begun", descriptor), &mut bytes).unwrap_err());
        assert!(error.contains("Descriptor) cannot be sent: a descriptor can only be"), "{error}");
        assert_eq!(bytes, b"before");
    }
}
