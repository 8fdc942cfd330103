//! What a password that people choose must be (PWD-2): long, not common, not the user's name. No composition rules (NIST SP 800-63B).

/// The fewest characters.
pub const MIN_CHARS: usize = 12;
/// A word that is found with fewer guesses is a common one.
const COMMON_WORD_GUESSES: u64 = 20_000;

/// What is wrong with a password; None if it may be used.
#[must_use]
pub fn fault(password: &str, user_name: &str) -> Option<&'static str> {
    let chars = password.chars().count();
    if chars < MIN_CHARS {
        return Some("needs 12 characters or more");
    }
    if chars > 256 {
        return Some("takes 256 characters at most");
    }
    let lower = password.to_lowercase();
    // Of an address, what stands before the `@`.
    let name = user_name.to_lowercase();
    let name = name.split('@').next().unwrap_or_default();
    // A very short one is part of many words; then it must not stand by itself.
    let contains_name = if name.chars().count() >= 3 {
        lower.contains(name)
    } else {
        !name.is_empty()
            && lower
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| word == name)
    };
    if contains_name {
        return Some("must not contain the user name");
    }
    // Lists of leaked passwords, words, names, dates and rows of keys, and what people do to them; and one common word with digits and
    // punctuation around it, which counts for more there than it is worth.
    let core = lower.trim_matches(|c: char| !c.is_alphabetic());
    let is_common_word = core.chars().count() < MIN_CHARS
        && zxcvbn::zxcvbn(core, &[user_name]).guesses() < COMMON_WORD_GUESSES;
    if is_common_word || zxcvbn::zxcvbn(password, &[user_name]).score() < zxcvbn::Score::Three {
        return Some("is among known common passwords, or easily made of them");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves PWD-2
    #[test]
    fn common_and_personal_passwords_are_refused() {
        for bad in [
            "short",
            "Password2026!",
            "passwordpassword",
            "qwertyuiop123",
            "123456789012",
            "aaaaaaaaaaaa",
            "P@ssw0rd1234",
            "Welcome2026!!",
            "ann.smith-2026-xyz",
            "abcdefghijkl",
            "summer2026!!",
            "babygirl12345",
            "unbelievable1",
            "letmeinplease",
        ] {
            assert!(fault(bad, "Ann.Smith").is_some(), "{bad}");
        }
        for good in [
            "correct horse battery staple",
            "tall blue gate 9",
            "Kj8vQ2mPz5Lw",
            "мой длинный пароль",
            "forêt-étoile-nuage",
        ] {
            assert_eq!(fault(good, "ann.smith"), None, "{good}");
        }
        assert!(fault("ann.smith-blue-gate-9", "ann.smith@mail.example").is_some());
        assert!(fault("al-tall-blue-gate-9", "Al").is_some());
        assert_eq!(fault("tall-blue-gate-9-river", "al"), None);
        assert!(
            fault(&"x9K".repeat(100), "a").is_some(),
            "300 characters are too many"
        );
    }
}
