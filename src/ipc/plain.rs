//! What can stand in memory that processes share: values that are nothing but bytes.

/// A value of a fixed number of bytes, which means the same in every process: numbers, `bool`, `char`, and arrays and tuples of them.
///
/// For a type of your own say how it is made of others. Whatever bytes it reads must be some value: another program may have written them.
///
/// ```
/// use procession::ipc::{Plain, Value};
///
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// struct Point {
///     x: f32,
///     y: f32,
/// }
///
/// impl Plain for Point {
///     const SIZE: usize = <(f32, f32)>::SIZE;
///
///     fn write(self, bytes: &mut [u8]) {
///         (self.x, self.y).write(bytes);
///     }
///
///     fn read(bytes: &[u8]) -> Point {
///         let (x, y) = Plain::read(bytes);
///         Point { x, y }
///     }
/// }
///
/// let position = Value::new(Point { x: 1.0, y: 2.0 })?;
/// position.update(|point| Point { x: point.x + 1.0, ..point });
/// assert_eq!(position.get(), Point { x: 2.0, y: 2.0 });
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "ctypes")]
pub trait Plain: Copy + Send + Sync + 'static {
    /// How many bytes it takes.
    const SIZE: usize;

    /// Writes it to so many bytes.
    fn write(self, bytes: &mut [u8]);

    /// Reads it from so many bytes.
    fn read(bytes: &[u8]) -> Self;
}

/// A [`Plain`] whole number, with arithmetic that wraps around.
///
/// For [`Value::fetch_add`](super::Value::fetch_add) and its like.
pub trait Integer: Plain + Ord + std::ops::BitAnd<Output = Self> + std::ops::BitOr<Output = Self> {
    /// The sum, modulo the size of the type.
    fn wrapping_add(self, other: Self) -> Self;

    /// The difference, modulo the size of the type.
    fn wrapping_sub(self, other: Self) -> Self;
}

/// The bytes as an array; those that are missing are 0.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Plain for $number {
            const SIZE: usize = size_of::<$number>();

            #[inline]
            fn write(self, bytes: &mut [u8]) {
                bytes.iter_mut().zip(self.to_ne_bytes()).for_each(|(to, from)| *to = from);
            }

            #[inline]
            fn read(bytes: &[u8]) -> $number {
                <$number>::from_ne_bytes(array(bytes))
            }
        }
    )*};
}

macro_rules! integers {
    ($($number:ty)*) => {$(
        impl Integer for $number {
            #[inline]
            fn wrapping_add(self, other: $number) -> $number {
                self.wrapping_add(other)
            }

            #[inline]
            fn wrapping_sub(self, other: $number) -> $number {
                self.wrapping_sub(other)
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

/// Any byte but 0 is true.
impl Plain for bool {
    const SIZE: usize = 1;

    fn write(self, bytes: &mut [u8]) {
        u8::from(self).write(bytes);
    }

    fn read(bytes: &[u8]) -> bool {
        u8::read(bytes) != 0
    }
}

/// What is no character is U+FFFD.
impl Plain for char {
    const SIZE: usize = 4;

    fn write(self, bytes: &mut [u8]) {
        u32::from(self).write(bytes);
    }

    fn read(bytes: &[u8]) -> char {
        char::from_u32(u32::read(bytes)).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

impl<T: Plain, const N: usize> Plain for [T; N] {
    const SIZE: usize = T::SIZE * N;

    fn write(self, bytes: &mut [u8]) {
        self.into_iter().zip(bytes.chunks_mut(T::SIZE.max(1))).for_each(|(value, bytes)| value.write(bytes));
    }

    fn read(bytes: &[u8]) -> [T; N] {
        std::array::from_fn(|index| T::read(part(bytes, index * T::SIZE)))
    }
}

/// The bytes from there on; none where there are none.
fn part(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        #[allow(non_snake_case)]
        impl<$($name: Plain),+> Plain for ($($name,)+) {
            const SIZE: usize = 0 $(+ $name::SIZE)+;

            fn write(self, bytes: &mut [u8]) {
                let ($($name,)+) = self;
                let rest = bytes;
                $(let (here, rest) = rest.split_at_mut($name::SIZE.min(rest.len())); $name.write(here);)+
                let _ = rest;
            }

            fn read(bytes: &[u8]) -> ($($name,)+) {
                let rest = bytes;
                $(let ($name, rest) = ($name::read(rest), part(rest, $name::SIZE));)+
                let _ = rest;
                ($($name,)+)
            }
        }
    )*};
}

tuples! { A; A B; A B C; A B C D; }

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn same<T: Plain + PartialEq + std::fmt::Debug>(value: T) {
        let mut bytes = vec![0xaa; T::SIZE];
        value.write(&mut bytes);
        assert_eq!(T::read(&bytes), value);
    }

    #[test]
    fn values_come_back() {
        same(-3_i16);
        same(u128::MAX - 1);
        same(1.5e300);
        same([true, false]);
        same('ß');
        same(([1_u8, 2, 3], -1_i64, 'x', [[0.5_f32; 2]; 3]));
        same(((7_u8,), [0_u64; 0]));
    }

    #[test]
    fn any_bytes_are_some_value() {
        assert!(bool::read(&[7]));
        assert_eq!(char::read(&0xd800_u32.to_ne_bytes()), char::REPLACEMENT_CHARACTER);
        assert_eq!(<(u8, u32)>::read(&[]), (0, 0));
    }
}
