//! Rights: ROL-4 to ROL-13.
