//! How the objects that processes share come to another process: what all of them have in common. Leaves to the object what stands in its memory.

/// Passing for an object that is one descriptor: `$name { region, .. }` of the kind `$kind`.
macro_rules! one_descriptor {
    ($name:ident, $kind:expr) => {
        impl $name {
            #[doc = concat!("The ", stringify!($name), " behind a descriptor, in a program that has inherited it: the counterpart of `as_fd`.")]
            ///
            /// # Errors
            /// If it is something else, or of another version of this library.
            pub fn from_fd(descriptor: impl Into<std::os::fd::OwnedFd>) -> Result<$name, crate::error::Error> {
                Ok($name { region: crate::ipc::region::Region::attach(&$kind, descriptor.into())? })
            }
        }

        /// The descriptor of the memory, to hand it on.
        impl std::os::fd::AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.region.as_fd()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.region.serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                Ok($name { region: crate::ipc::region::Region::deserialize(&$kind, deserializer)? })
            }
        }
    };
}

/// Passing for an object that is its memory and a bell: `$name { region, bell }` of the kind `$kind`.
macro_rules! memory_and_bell {
    ($name:ident, $kind:expr) => {
        impl $name {
            /// The two descriptors that it is, for a program that inherits them.
            pub fn as_fds(&self) -> [std::os::fd::BorrowedFd<'_>; 2] {
                [self.region.as_fd(), self.bell.as_fd()]
            }

            #[doc = concat!("The ", stringify!($name), " behind two descriptors, in a program that has inherited them: the counterpart of `as_fds`.")]
            ///
            /// # Errors
            /// If they are something else, or of another version of this library.
            pub fn from_fds(descriptors: [std::os::fd::OwnedFd; 2]) -> Result<$name, crate::error::Error> {
                let [memory, bell] = descriptors;
                let bell = crate::ipc::bell::Bell::attach(bell)?;
                Ok($name { region: crate::ipc::region::Region::attach(&$kind, memory)?, bell })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                (&self.region, &self.bell).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                use crate::ipc::passing::{Descriptor, because};
                let (memory, bell) = <(Descriptor, Descriptor)>::deserialize(deserializer)?;
                let object = $name::from_fds([memory.into_owned_fd(), bell.into_owned_fd()]);
                object.map_err(|why| serde::de::Error::custom(because(why)))
            }
        }
    };
}

pub(super) use {memory_and_bell, one_descriptor};
