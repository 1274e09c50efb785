//! Floating point and Advanced SIMD: Arm DDI 0487, C4.1.

/// Appends the rows of this file to those given, and hands all to the macro.
#[doc(hidden)]
#[macro_export]
macro_rules! vector_instructions {
    ($macro:ident $($rows:tt)*) => { $macro! { $($rows)*
        // Rows of semantics/float*.rs and vector*.rs
    } };
}
