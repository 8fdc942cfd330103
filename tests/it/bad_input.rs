//! Bad input: limits, malformed bytes, wrong tokens.
