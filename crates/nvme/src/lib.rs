//! The NVM Express controller.
