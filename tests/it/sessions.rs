//! SessionService: sign-in, tokens, passwords, sessions.
