//! A function that runs in another process: how it is named there, and how it is called with bytes. Decides which functions can be called: those
//! that carry no value of their own, and belong to the main program. Leaves to others how the bytes travel.

use super::codec::{self, Encoded};
use crate::error::Error;
use crate::sys::program;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::os::fd::OwnedFd;

/// The name of a function in every process of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    place: u64,
}

/// What a function is called with, and what came out of it.
#[derive(Debug, Default)]
pub(crate) struct Invocation {
    arguments: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    result: Option<Result<Encoded, Error>>,
}

impl Function {
    /// The name of this function. An error if another process could not find it.
    pub(crate) fn of<F, A, R>(_witness: F) -> Result<Function, Error>
    where
        F: Fn(A) -> R + Copy + 'static,
        A: DeserializeOwned,
        R: Serialize,
    {
        const { assert!(size_of::<F>() == 0, "pass the function itself: no pointer to it, and no closure that captures") };
        let place = program::place_of(call::<F, A, R>).ok_or_else(|| {
            Error::unsupported(format!(
                "{} belongs to a library that was loaded by {}; only functions of the main program can run in another process",
                std::any::type_name::<F>(),
                std::env::current_exe().unwrap_or_default().display(),
            ))
        })?;
        Ok(Function { place })
    }

    /// The number to send, for the same program only.
    pub(crate) fn place(self) -> u64 {
        self.place
    }

    /// What another process of the same program has sent.
    pub(crate) fn at(place: u64) -> Function {
        Function { place }
    }

    /// Calls it here. The result in bytes, with the descriptors in it; an error if the arguments are none of its, or the result cannot be sent. A panic passes through.
    pub(crate) fn call(self, arguments: Vec<u8>, descriptors: Vec<OwnedFd>) -> Result<Encoded, Error> {
        let nowhere = || Error::invalid(format!("there is no function at {:#x} of this program", self.place));
        let routine = program::routine_at(self.place).ok_or_else(nowhere)?;
        let mut invocation = Invocation { arguments, descriptors, result: None };
        routine(&mut invocation);
        invocation.result.unwrap_or_else(|| Err(nowhere()))
    }
}

/// What stands at the place: one for each function, with its types.
fn call<F, A, R>(invocation: &mut dyn Any)
where
    F: Fn(A) -> R + Copy + 'static,
    A: DeserializeOwned,
    R: Serialize,
{
    let Some(invocation) = invocation.downcast_mut::<Invocation>() else { return };
    let (bytes, descriptors) = (std::mem::take(&mut invocation.arguments), std::mem::take(&mut invocation.descriptors));
    let arguments = codec::decode::<A>(&bytes, descriptors);
    drop(bytes);
    invocation.result = Some(arguments.and_then(|arguments| {
        let function = program::without_size::<F>();
        codec::encode(&function(arguments))
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add((one, two): (u32, u32)) -> u32 {
        one + two
    }

    #[test]
    fn a_function_is_called_with_bytes() {
        let (arguments, descriptors) = codec::encode(&(20_u32, 22_u32)).unwrap();
        let function = Function::at(Function::of(add).unwrap().place());
        let (result, descriptors) = function.call(arguments, descriptors).unwrap();
        assert_eq!(codec::decode::<u32>(&result, descriptors).unwrap(), 42);
        let closure = Function::of(|text: String| text.len()).unwrap();
        assert_ne!(closure, function);
        assert!(closure.call(vec![200], Vec::new()).is_err());
        assert!(Function::at(0).call(Vec::new(), Vec::new()).is_err());
    }
}
