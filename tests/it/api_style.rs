//! The shape of the API, over the descriptors.
