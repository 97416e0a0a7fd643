//! What tells a loop that waits for descriptors that an object is worth a look: an eventfd beside the memory. It costs a system call for each
//! change, so it is kept right only from the moment on when somebody asks for it.

use super::passing;
use crate::error::Error;
use crate::sys::eventfd;
use serde::{Serialize, Serializer};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn create() -> Result<Bell, Error> {
        let bell = eventfd::create().map_err(|error| Error::io("eventfd", error))?;
        Ok(Bell(Arc::new(bell)))
    }

    pub(crate) fn attach(bell: OwnedFd) -> Result<Bell, Error> {
        match eventfd::is_one(bell.as_fd()) {
            Ok(true) => Ok(Bell(Arc::new(bell))),
            Ok(false) => Err(Error::invalid("the second descriptor is no eventfd")),
            Err(error) => Err(Error::io("readlink", error).path("/proc/thread-self/fd")),
        }
    }

    /// Makes it readable, or not.
    pub(crate) fn set(&self, rings: bool) {
        if rings {
            eventfd::ring(self.as_fd());
        } else {
            eventfd::silence(self.as_fd());
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Serialize for Bell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        passing::serialize(self.as_fd(), serializer)
    }
}
