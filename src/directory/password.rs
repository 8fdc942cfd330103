//! What a password that people choose must be (PWD-2): long, not common, not the user's name. No composition rules (NIST SP 800-63B).

/// The fewest characters.
pub const MIN_CHARS: usize = 12;

/// Words that most bad passwords are made of; facts of every published list of leaked passwords.
const COMMON_WORDS: &[&str] = &[
    "password",
    "passwort",
    "motdepasse",
    "passw0rd",
    "qwerty",
    "qwertz",
    "azerty",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "letmein",
    "welcome",
    "bienvenue",
    "willkommen",
    "admin",
    "administrator",
    "root",
    "login",
    "master",
    "iloveyou",
    "monkey",
    "dragon",
    "sunshine",
    "princess",
    "football",
    "baseball",
    "superman",
    "batman",
    "trustno1",
    "shadow",
    "michael",
    "jennifer",
    "jordan",
    "hunter",
    "charlie",
    "freedom",
    "whatever",
    "computer",
    "internet",
    "secret",
    "summer",
    "winter",
    "spring",
    "autumn",
    "changeme",
    "changeit",
    "default",
    "guest",
    "test",
    "testing",
    "temp",
    "temporary",
    "company",
    "contoso",
    "fabrikam",
    "entente",
    "partner",
    "abc",
    "abcd",
    "abcdef",
    "aaa",
    "google",
    "microsoft",
    "apple",
    "amazon",
    "starwars",
    "pokemon",
    "cheese",
    "chocolate",
    "liverpool",
    "chelsea",
    "arsenal",
    "correct",
    "january",
    "february",
    "march",
    "april",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "friday",
];

/// Rows of keyboards and of counting, forwards; backwards counts too.
const RUNS: &[&str] = &[
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1q2w3e4r5t6y7u8i9o0p",
    "qazwsxedcrfvtgbyhnujmikolp",
];

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
    let name = user_name.to_lowercase();
    if name.chars().count() >= 3 && lower.contains(&name) {
        return Some("must not contain the user name");
    }
    if is_common(&lower) {
        return Some("is among known common passwords");
    }
    None
}

/// Whether nothing but common pieces is left: words, runs, repeated characters, digits and punctuation around them.
fn is_common(lower: &str) -> bool {
    let plain: String = lower
        .chars()
        .map(|c| match c {
            '@' | '4' => 'a',
            '0' => 'o',
            '1' | '!' => 'i',
            '3' => 'e',
            '$' | '5' => 's',
            '7' => 't',
            c => c,
        })
        .collect();
    [lower, plain.as_str()].into_iter().any(|text| {
        let mut rest = text.to_owned();
        let mut words: Vec<_> = COMMON_WORDS.to_vec();
        words.sort_by_key(|w| std::cmp::Reverse(w.len()));
        for word in words {
            rest = rest.replace(word, " ");
        }
        uncommon_chars(&rest) < 4
    })
}

/// How many characters are left when runs, repetitions, digits and punctuation are taken out.
fn uncommon_chars(text: &str) -> usize {
    let chars: Vec<char> = text.chars().collect();
    let mut uncommon = 0;
    let mut i = 0;
    while i < chars.len() {
        let run = (i + 1..=chars.len()).rev().find(|end| {
            let piece: String = chars[i..*end].iter().collect();
            let backwards: String = chars[i..*end].iter().rev().collect();
            end - i >= 3
                && (RUNS
                    .iter()
                    .any(|r| r.contains(&piece) || r.contains(&backwards))
                    || chars[i..*end].iter().all(|c| *c == chars[i]))
        });
        match run {
            Some(end) => i = end,
            None => {
                uncommon += usize::from(chars[i].is_alphabetic());
                i += 1;
            }
        }
    }
    uncommon
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
        assert!(
            fault(&"x9K".repeat(100), "a").is_some(),
            "300 characters are too many"
        );
    }
}
