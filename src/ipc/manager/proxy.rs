//! What a process holds of an object that lives in a manager's process. Decides what all proxies have in common: they are cloned, passed on and found by
//! name. Leaves to each kind what it can be asked.

use super::client::{Client, Handle};
use super::object::{self, Exclusive, Shared};
use super::protocol::{Failure, ManagerRequest2, Payload, Verb};
use super::server::put_on_shelf;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipc::function::Function;
use crate::sys::program::without_size;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// What stands for an object of a manager: [`Proxy`], [`Dict`](super::Dict), and the others of this module. They are published and found by name.
///
/// Nobody else can have it.
pub trait Managed: Sized {
    #[doc(hidden)]
    fn handle(&self) -> &Handle;

    #[doc(hidden)]
    fn of_handle(handle: Handle) -> Self;
}

/// A type that stands for an object, `$name { handle, types }`: clones are references to the same object, and so is what arrives elsewhere.
macro_rules! managed {
    ($name:ident $(<$($parameter:ident),+>)?) => {
        impl $(<$($parameter),+>)? $crate::ipc::manager::Managed for $name $(<$($parameter),+>)? {
            fn handle(&self) -> &$crate::ipc::manager::client::Handle {
                &self.handle
            }

            fn of_handle(handle: $crate::ipc::manager::client::Handle) -> Self {
                $name { handle, types: std::marker::PhantomData }
            }
        }

        impl $(<$($parameter),+>)? Clone for $name $(<$($parameter),+>)? {
            fn clone(&self) -> Self {
                $name { handle: self.handle.clone(), types: std::marker::PhantomData }
            }
        }

        /// Whether they stand for the same object.
        impl $(<$($parameter),+>)? PartialEq for $name $(<$($parameter),+>)? {
            fn eq(&self, other: &Self) -> bool {
                self.handle.is_same(&other.handle)
            }
        }

        impl $(<$($parameter),+>)? Eq for $name $(<$($parameter),+>)? {}

        impl $(<$($parameter),+>)? std::fmt::Debug for $name $(<$($parameter),+>)? {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.debug_tuple(&$crate::ipc::codec::short_name::<Self>()).field(&self.handle.object()).finish()
            }
        }

        impl $(<$($parameter),+>)? serde::Serialize for $name $(<$($parameter),+>)? {
            fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                self.handle.serialize(serializer)
            }
        }

        impl<'de $($(, $parameter)+)?> serde::Deserialize<'de> for $name $(<$($parameter),+>)? {
            fn deserialize<Z: serde::Deserializer<'de>>(deserializer: Z) -> Result<Self, Z::Error> {
                let handle = serde::Deserialize::deserialize(deserializer)?;
                Ok($name { handle, types: std::marker::PhantomData })
            }
        }
    };
}
pub(super) use managed;

/// Stands for an object of your own type in a manager's process: see [`Shared`].
///
/// It can be cloned, used by several threads at a time, and passed on: as an argument of a [`Process`](crate::ipc::Process), in a message, as a value in a
/// [`Dict`](super::Dict). The object lives as long as anybody has a proxy for it, or it has a name. On its way a proxy keeps its object for two minutes.
pub struct Proxy<T> {
    handle: Handle,
    types: PhantomData<fn() -> T>,
}

managed!(Proxy<T>);

impl<T: Shared> Proxy<T> {
    /// Calls the object, and waits for its answer.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`](crate::ErrorKind::Ended) when the manager has ended, also while one waits. [A panic](Error::panic) of the object, and
    /// [`ErrorKind::Panic`](crate::ErrorKind::Panic) for later calls, as it may be half done. A call or an answer that cannot be sent.
    pub fn call(&self, call: &T::Call) -> Result<T::Answer, Error> {
        self.handle.call(call, Deadline::NEVER)
    }

    /// As [`call`](Self::call), but waits so long at most. The call may still be carried out then.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [a timeout](Error::is_timeout).
    pub fn call_timeout(&self, call: &T::Call, timeout: Duration) -> Result<T::Answer, Error> {
        let deadline = Deadline::after(timeout);
        let request = ManagerRequest2 {
            patience: deadline.remaining(),
            payload: Payload::of(call)?,
            ..ManagerRequest2::new(Verb::Call, self.handle.object())
        };
        self.handle.request(&request, deadline)?.value()
    }

    /// Calls a function with the object in its hands, over there: nobody else has it meanwhile. For everything that takes several steps.
    ///
    /// Only in the program that has made the object, on the same machine. The function captures nothing, as that of a
    /// [`Process`](crate::ipc::Process); its result must not have descriptors in it.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) from elsewhere.
    pub fn with<F, A, R>(&self, function: F, arguments: A) -> Result<R, Error>
    where
        F: Fn(&mut T, A) -> R + Copy + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        run(&self.handle, function, &arguments)
    }
}

/// Calls a function with the object in its hands.
pub(super) fn run<T, F, A, R>(handle: &Handle, function: F, arguments: &A) -> Result<R, Error>
where
    T: Shared,
    F: Fn(&mut T, A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let _witness = function;
    let number = Function::of(run_there::<T, F, A, R>)?.place();
    let payload = Payload::of(arguments)?;
    let request = ManagerRequest2 { number, payload, ..ManagerRequest2::new(Verb::Run, handle.object()) };
    let result = handle.request(&request, Deadline::NEVER)?.value::<Result<R, Failure>>()?;
    result.map_err(Failure::into_error)
}

fn run_there<T, F, A, R>(arguments: A) -> Result<R, Failure>
where
    T: Shared,
    F: Fn(&mut T, A) -> R + Copy + 'static,
{
    let function = without_size::<F>();
    object::in_hands(|object: &mut T| function(object, arguments))
}

/// Makes an object in the manager's process.
pub(super) fn create<T, F, A>(client: &Arc<Client>, make: F, arguments: &A) -> Result<Handle, Error>
where
    T: Shared,
    F: Fn(A) -> T + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
{
    let _witness = make;
    create_by(client, make_there::<T, F, A>, arguments)
}

fn make_there<T, F, A>(arguments: A)
where
    T: Shared,
    F: Fn(A) -> T + Copy + 'static,
{
    put_on_shelf(Exclusive::new(without_size::<F>()(arguments)));
}

/// Makes an object by a function that puts it on the shelf itself.
pub(super) fn create_by<F, A>(client: &Arc<Client>, make: F, arguments: &A) -> Result<Handle, Error>
where
    F: Fn(A) + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
{
    let number = Function::of(make)?.place();
    let payload = Payload::of(arguments)?;
    Handle::create(client, &ManagerRequest2 { number, payload, ..ManagerRequest2::new(Verb::Create, 0) })
}
