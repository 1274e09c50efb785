//! Advanced SIMD and floating point: operations on whole vectors, and their reference functions.

/// An operation on up to three vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation {}

/// An operation from a vector to a general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ToValue {}

/// An operation from a general register to a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FromValue {}

/// A scalar comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compare {}
