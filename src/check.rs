//! What every request is held against before its function runs: the limits that the protos declare (COM-9), all violations at once.
//!
//! `build.rs` generates the implementations of these traits from the descriptors; here are the checks that they call.

use std::{borrow::Cow, fmt};

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{access::roles::Permission, error::Error, names::Name};

/// Items of one list whose faults are named; the list itself is refused beyond its bound.
pub const MOST_ITEMS_NAMED: usize = 1_000;

/// Violations named in one answer: a hostile request must not buy a long answer.
const MOST_VIOLATIONS: usize = 100;

/// Requests that take a `FieldMask` name at most so many paths.
const MOST_MASK_PATHS: usize = 50;

/// Whether required fields must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A resource is made: required fields must be set, its name is ignored.
    Create,
    /// A resource is changed by a mask: what is not set is left alone.
    Update,
}

impl Mode {
    /// Whether an existing resource is changed.
    #[must_use]
    pub fn updates(self) -> bool {
        self == Self::Update
    }
}

/// The violations found so far.
#[derive(Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// Adds one.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.0.len() < MOST_VIOLATIONS {
            self.0.push((field.into(), description.into()));
        }
    }

    /// Adds one, unless something is wrong with the field already.
    pub fn also(&mut self, field: impl Into<String>, description: impl Into<String>) {
        let field = field.into();
        if !self.names(&field) {
            self.add(field, description);
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something is wrong with a field.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        self.0.iter().any(|(f, _)| f == field)
    }

    /// An error that names them all, if there are any.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `INVALID_FIELDS`.
    pub fn none(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid(self.0))
        }
    }
}

/// Where in the request a field stands, built only when a violation is named.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> At<'a> {
    /// The request itself.
    #[must_use]
    pub fn root() -> Self {
        Self {
            parent: None,
            name: "",
            index: None,
        }
    }

    /// A field of this message.
    #[must_use]
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            name,
            index: None,
        }
    }

    /// An element of a list of this message.
    #[must_use]
    pub fn item(&'a self, name: &'a str, index: usize) -> At<'a> {
        At {
            parent: Some(self),
            name,
            index: Some(index),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            if !parent.name.is_empty() {
                write!(f, "{parent}.")?;
            }
            f.write_str(self.name)?;
        }
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

/// The limits of a field, as the proto declares them (`entente.access.v1.takes`).
pub struct Takes {
    /// Most characters.
    pub max_chars: usize,
    /// Fewest characters, if set at all.
    pub min_chars: usize,
    /// Newlines and tabs are allowed.
    pub multi_line: bool,
    /// A value of `entente.access.v1.Format`.
    pub format: i32,
    /// Most elements.
    pub max_items: usize,
    /// Fewest elements.
    pub min_items: usize,
    /// Smallest number.
    pub min_value: i64,
    /// Largest number; 0 for no bound.
    pub max_value: i64,
    /// What is wrong with elements of the list, but for their length, is the function's to tell.
    pub late_elements: bool,
    /// Types of resources that a name may name; none for what is no name.
    pub kinds: &'static [&'static str],
}

/// A message that can be held against its declared limits. Texts are normalised (NFC), output-only fields cleared.
pub trait Check {
    /// Adds every violation to `v`.
    fn check(&mut self, at: &At<'_>, mode: Mode, v: &mut Violations);
}

/// What the kernel asks of every request.
pub trait Request: Check + prost::Message + Clone + Default + Send + Sync + 'static {
    /// Whether it updates a resource by a mask.
    const UPDATES: bool;
    /// Adds the resource names at a dotted path, and gives the types they may have; None if the path names none.
    fn names<'a>(&'a self, path: &str, out: &mut Vec<&'a str>) -> Option<&'static [&'static str]>;
    /// Whether the field at a dotted path is set.
    fn is_set(&self, path: &str) -> bool;
    /// The `request_id`, empty if none.
    fn request_id(&self) -> &str;
    /// Empties the `request_id`, for comparing requests.
    fn clear_request_id(&mut self);
    /// Whether the call is only to be checked.
    fn validate_only(&self) -> bool;
    /// The text of a field of the request itself; empty if there is none of that name.
    fn text(&self, field: &str) -> &str;
    /// The chunk's place in its stream; 0 elsewhere.
    fn sequence(&self) -> i64;
    /// The bytes that a message of an upload brings; none of other requests.
    fn content(&mut self) -> Option<&mut Vec<u8>>;
    /// Adds what is wrong with the request as such, beyond its declared limits: the method's `check_x`. What the limits refuse is still
    /// in it.
    fn check_whole(&self, v: &mut Violations);
}

/// A message whose one-time secrets can be taken out.
pub trait Redact {
    /// Takes them out; whether there were any.
    fn redact(&mut self) -> bool;
}

/// Whether a field has its default value.
pub trait Emptiness {
    /// Whether it has.
    fn is_empty(&self) -> bool;
}

impl Emptiness for String {
    fn is_empty(&self) -> bool {
        str::is_empty(self)
    }
}
impl<T> Emptiness for Vec<T> {
    fn is_empty(&self) -> bool {
        <[T]>::is_empty(self)
    }
}
impl<T> Emptiness for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}
impl Emptiness for bool {
    fn is_empty(&self) -> bool {
        !*self
    }
}
impl Emptiness for i32 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}
impl Emptiness for i64 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

/// A text: required, normalised, no control characters, within its length, of its form.
pub fn text(value: &mut String, at: &At<'_>, required: bool, takes: &Takes, v: &mut Violations) {
    if value.is_empty() {
        if required {
            v.add(at.to_string(), "is required");
        }
        return;
    }
    // A text far over its bound is not worth normalising: NFC shrinks a text at most threefold in characters.
    if value.len() > takes.max_chars.saturating_mul(12) {
        v.add(
            at.to_string(),
            format!("has more than {} characters", takes.max_chars),
        );
        return;
    }
    if is_nfc_quick(value.chars()) != IsNormalized::Yes {
        *value = value.nfc().collect();
    }
    // The whole form is told by its own check; a control character in a password is one of its characters.
    if takes.format != 8
        && let Some(bad) = value
            .chars()
            .find(|c| c.is_control() && !(takes.multi_line && matches!(c, '\n' | '\t')))
    {
        v.add(
            at.to_string(),
            format!("holds the control character U+{:04X}", u32::from(bad)),
        );
        return;
    }
    let chars = value.chars().count();
    if chars > takes.max_chars {
        v.add(
            at.to_string(),
            format!(
                "has {chars} characters; at most {} are allowed",
                takes.max_chars
            ),
        );
        return;
    }
    if chars < takes.min_chars {
        v.add(
            at.to_string(),
            format!(
                "has {chars} characters; at least {} are needed",
                takes.min_chars
            ),
        );
        return;
    }
    if let Some(fault) = form(value, takes) {
        v.add(at.to_string(), fault);
    } else if matches!(takes.format, 5 | 6) {
        one_uri(value, at, takes, v);
    }
}

/// Brings a URI into the one form that all spellings of it have, so that unique means one place and not one spelling.
fn one_uri(value: &mut String, at: &At<'_>, takes: &Takes, v: &mut Violations) {
    let Some(uri) = uri(value) else { return };
    *value = uri.into();
    if value.len() > takes.max_chars {
        v.add(
            at.to_string(),
            format!(
                "has {} characters in its normal form; at most {} are allowed",
                value.len(),
                takes.max_chars
            ),
        );
    }
}

/// A text of which only the length counts here.
fn length(value: &str, at: &At<'_>, takes: &Takes, v: &mut Violations) {
    let chars = value.chars().count();
    if chars > takes.max_chars {
        v.add(
            at.to_string(),
            format!(
                "has {chars} characters; at most {} are allowed",
                takes.max_chars
            ),
        );
    }
}

/// A list of texts.
pub fn texts(
    values: &mut [String],
    at: &At<'_>,
    required: bool,
    takes: &Takes,
    v: &mut Violations,
) {
    if !items(values.len(), at, required, takes, v) {
        return;
    }
    let mut seen = std::collections::HashSet::with_capacity(values.len());
    for (i, value) in values.iter_mut().enumerate() {
        let place = At {
            parent: at.parent,
            name: at.name,
            index: Some(i),
        };
        if takes.late_elements {
            length(value, &place, takes, v);
            continue;
        }
        text(value, &place, true, takes, v);
        if !seen.insert(value.clone()) {
            v.add(place.to_string(), "stands in the list before");
        }
    }
}

/// The number of elements of a list; whether it is within its bound.
pub fn items(count: usize, at: &At<'_>, required: bool, takes: &Takes, v: &mut Violations) -> bool {
    if count > takes.max_items {
        v.add(
            at.to_string(),
            format!(
                "has {count} elements; at most {} are allowed",
                takes.max_items
            ),
        );
        return false;
    }
    if count < takes.min_items || (required && count == 0) {
        v.add(
            at.to_string(),
            format!(
                "has {count} elements; at least {} are needed",
                takes.min_items.max(1)
            ),
        );
    }
    true
}

/// A message that must be there.
pub fn present(there: bool, at: &At<'_>, required: bool, v: &mut Violations) {
    if required && !there {
        v.add(at.to_string(), "is required");
    }
}

/// An enumeration's value, one of those that the proto knows.
pub fn enumeration(
    value: &i32,
    at: &At<'_>,
    required: bool,
    known: &[i32],
    _takes: &Takes,
    v: &mut Violations,
) {
    if !known.contains(value) {
        v.add(
            at.to_string(),
            format!("{value} is no value of this enumeration"),
        );
    } else if required && *value == 0 {
        v.add(at.to_string(), "is required");
    }
}

/// A list of an enumeration's values, each once and none unspecified.
pub fn enumerations(
    values: &[i32],
    at: &At<'_>,
    required: bool,
    known: &[i32],
    takes: &Takes,
    v: &mut Violations,
) {
    if !items(values.len(), at, required, takes, v) {
        return;
    }
    for (i, value) in values.iter().enumerate() {
        let place = At {
            parent: at.parent,
            name: at.name,
            index: Some(i),
        };
        if *value == 0 || !known.contains(value) {
            v.add(place.to_string(), format!("{value} is no value to choose"));
        } else if values[..i].contains(value) {
            v.add(place.to_string(), "stands in the list before");
        }
    }
}

/// Bytes, no more than a message may bring.
pub fn bytes(value: &[u8], at: &At<'_>, most: usize, v: &mut Violations) {
    if value.len() > most {
        v.add(at.to_string(), format!("has more than {most} bytes"));
    }
}

/// A number within its bounds.
pub fn number(value: i64, at: &At<'_>, takes: &Takes, v: &mut Violations) {
    if value < takes.min_value || (takes.max_value != 0 && value > takes.max_value) {
        let bounds = match takes.max_value {
            0 => format!("at least {}", takes.min_value),
            max => format!("from {} to {max}", takes.min_value),
        };
        v.add(at.to_string(), format!("{value} is not {bounds}"));
    }
}

/// A timestamp from year 1 to 9999, as its definition says.
pub fn timestamp(
    value: &Option<prost_types::Timestamp>,
    at: &At<'_>,
    required: bool,
    v: &mut Violations,
) {
    match value {
        None => present(false, at, required, v),
        Some(t)
            if !(-62_135_596_800..=253_402_300_799).contains(&t.seconds)
                || !(0..1_000_000_000).contains(&t.nanos) =>
        {
            v.add(at.to_string(), "is no timestamp from the year 1 to 9999");
        }
        Some(_) => {}
    }
}

/// A duration, as its definition says.
pub fn duration(
    value: &Option<prost_types::Duration>,
    at: &At<'_>,
    required: bool,
    v: &mut Violations,
) {
    match value {
        None => present(false, at, required, v),
        Some(d)
            if !(-315_576_000_000..=315_576_000_000).contains(&d.seconds)
                || !(-999_999_999..=999_999_999).contains(&d.nanos)
                || (d.seconds > 0 && d.nanos < 0)
                || (d.seconds < 0 && d.nanos > 0) =>
        {
            v.add(at.to_string(), "is no duration within 10,000 years");
        }
        Some(_) => {}
    }
}

/// A field mask of bearable length; what it may name is the resource's matter.
pub fn mask(
    value: &Option<prost_types::FieldMask>,
    at: &At<'_>,
    required: bool,
    v: &mut Violations,
) {
    match value {
        None => present(false, at, required, v),
        Some(mask)
            if mask.paths.len() > MOST_MASK_PATHS || mask.paths.iter().any(|p| p.len() > 100) =>
        {
            v.add(
                at.to_string(),
                format!("takes at most {MOST_MASK_PATHS} paths of 100 characters"),
            );
        }
        Some(_) => {}
    }
}

/// What is wrong with a text's form; None if it is right.
fn form(value: &str, takes: &Takes) -> Option<Cow<'static, str>> {
    match takes.format {
        1 => (uuid::Uuid::try_parse(value).is_err() || value.len() != 36)
            .then_some("is no UUID in the form 8-4-4-4-12".into()),
        2 => (!is_email(value)).then_some("is no single e-mail address".into()),
        3 => (!is_domain_prefix(value))
            .then_some("takes letters, digits and hyphens, a letter first, no hyphen last".into()),
        4 => (!value
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '\'')))
        .then_some("takes letters, digits and . - _ '".into()),
        5 => (!is_web_uri(value))
            .then_some("is no absolute https URI, nor an http one of a loopback host".into()),
        6 => (!is_harmless_uri(value)).then_some("is no absolute URI of a harmless scheme".into()),
        7 => match Name::parse(value) {
            Some(name) if takes.kinds.contains(&name.kind()) => None,
            _ => Some(match takes.kinds {
                [kind] => format!(
                    "is no name of a {}",
                    kind.trim_start_matches("entente.dev/")
                )
                .into(),
                _ => "is no resource name that is known here".into(),
            }),
        },
        9 => Permission::parse(value)
            .is_none()
            .then_some("is no permission; GetRoleTable lists them".into()),
        10 => (!COUNTRIES.contains(&value))
            .then_some("is no country code of ISO 3166-1 alpha-2".into()),
        11 => (!is_phone_number(value)).then_some(
            "is no telephone number in E.164, such as +33142685300, without extension".into(),
        ),
        12 => (!is_currency(value)).then_some("is no currency of ISO 4217".into()),
        _ => None,
    }
}

/// Whether a text is the code of a currency that prices can be in; those for tests and for no currency are none.
fn is_currency(value: &str) -> bool {
    iso_currency::Currency::from_code(value).is_some() && !["XXX", "XTS"].contains(&value)
}

/// Whether a text is a telephone number in its one form: E.164, and one that there can be (ACC-5).
#[must_use]
pub fn is_phone_number(value: &str) -> bool {
    let digits = value.strip_prefix('+').unwrap_or("");
    (1..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && phonenumber::parse(None, value).is_ok_and(|number| {
            phonenumber::is_valid(&number)
                && number.extension().is_none()
                && number.format().mode(phonenumber::Mode::E164).to_string() == value
        })
}

/// Whether a text is one plain address: no display name, no list, no comment (ATK-5).
#[must_use]
pub fn is_email(value: &str) -> bool {
    value.is_ascii()
        && !value.contains(['<', '>', ',', ';', '"', '\\', ' ', '(', ')', '[', ']'])
        && value
            .parse::<email_address::EmailAddress>()
            .is_ok_and(|a| a.domain().contains('.'))
}

fn is_domain_prefix(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    lower
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && lower.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && !lower.ends_with('-')
}

/// An absolute URI (RFC 3986). The parser is that of browsers, which mends what isn't one: blanks, backslashes, a missing `//`. What needed
/// mending is refused, since others read it otherwise.
fn uri(value: &str) -> Option<url::Url> {
    if !value.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return None;
    }
    let uri = url::Url::parse(value).ok()?;
    let (_, rest) = value.split_once(':')?;
    let has_authority = rest
        .strip_prefix("//")
        .is_some_and(|rest| !rest.starts_with('/'));
    (has_authority || !uri.is_special()).then_some(uri)
}

fn is_web_uri(value: &str) -> bool {
    let Some(uri) = uri(value) else {
        return false;
    };
    let loopback = match uri.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return false,
    };
    uri.username().is_empty()
        && uri.password().is_none()
        && (uri.scheme() == "https" || (uri.scheme() == "http" && loopback))
}

fn is_harmless_uri(value: &str) -> bool {
    uri(value).is_some_and(|u| {
        !matches!(
            u.scheme(),
            "javascript" | "data" | "file" | "vbscript" | "blob"
        )
    })
}

/// The assigned codes of ISO 3166-1 alpha-2.
const COUNTRIES: &[&str] = &[
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ",
    "BA", "BB", "BD", "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS",
    "BT", "BV", "BW", "BY", "BZ", "CA", "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN",
    "CO", "CR", "CU", "CV", "CW", "CX", "CY", "CZ", "DE", "DJ", "DK", "DM", "DO", "DZ", "EC", "EE",
    "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA", "GB", "GD", "GE", "GF",
    "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK", "HM",
    "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM",
    "JO", "JP", "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC",
    "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK",
    "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS", "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA",
    "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ", "OM", "PA", "PE", "PF", "PG",
    "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE", "RO", "RS", "RU", "RW",
    "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS",
    "ST", "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO",
    "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VI",
    "VN", "VU", "WF", "WS", "YE", "YT", "ZA", "ZM", "ZW",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(value: &str, takes: Takes) -> Vec<String> {
        let mut v = Violations::default();
        let mut value = value.to_owned();
        text(&mut value, &At::root().field("f"), true, &takes, &mut v);
        v.0.into_iter().map(|(_, d)| d).collect()
    }

    fn takes(max_chars: usize, format: i32) -> Takes {
        Takes {
            max_chars,
            min_chars: 0,
            multi_line: false,
            format,
            max_items: 0,
            min_items: 0,
            min_value: 0,
            max_value: 0,
            late_elements: false,
            kinds: &[],
        }
    }

    // proves COM-9
    #[test]
    fn text_is_normalised_counted_in_characters_and_refused_with_controls() {
        let mut v = Violations::default();
        let mut value = "e\u{301}".repeat(5);
        text(
            &mut value,
            &At::root().field("f"),
            true,
            &takes(5, 0),
            &mut v,
        );
        assert!(v.0.is_empty());
        assert_eq!(value, "é".repeat(5));
        assert_eq!(faults("abcdef", takes(5, 0)).len(), 1);
        assert_eq!(faults("a\nb", takes(5, 0)).len(), 1);
        assert_eq!(faults("a\u{0}b", takes(5, 0)).len(), 1);
        assert!(
            faults(
                "a\nb",
                Takes {
                    multi_line: true,
                    ..takes(5, 0)
                }
            )
            .is_empty()
        );
    }

    #[test]
    fn one_address_is_one_address() {
        for good in ["a@example.com", "first.last+tag@sub.example.org"] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "a",
            "a@b",
            "a@example.com,b@example.com",
            "A <a@example.com>",
            "a@example.com\n",
            "a@example.com;b@example.com",
            "a b@example.com",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    // proves APP-2
    #[test]
    fn reply_urls_are_https_or_loopback() {
        for good in [
            "https://a.example/cb",
            "http://localhost:8080/cb",
            "http://127.0.0.1/cb",
            "http://[::1]/cb",
        ] {
            assert!(is_web_uri(good), "{good}");
        }
        for bad in [
            "http://a.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "/relative",
            "https://user:pw@a.example/",
        ] {
            assert!(!is_web_uri(bad), "{bad}");
        }
        // What browsers mend is none either, whatever it is for.
        for bad in [
            " https://a.example/cb",
            "https://a.example/cb ",
            "https://a.example/c b",
            "https:a.example/cb",
            "https:/a.example/cb",
            "https:///a.example/cb",
            "https:\\\\a.example\\cb",
            "https://a.example\\@b.example/cb",
            "https://\u{e9}.example/cb",
            "https://a.example/\u{e9}",
        ] {
            assert!(!is_web_uri(bad) && !is_harmless_uri(bad), "{bad}");
        }
        assert!(
            is_harmless_uri("api://contoso/app")
                && is_harmless_uri("urn:x:y")
                && !is_harmless_uri("javascript:1")
        );
    }

    // proves APP-2
    #[test]
    fn all_spellings_of_a_uri_are_one() {
        for (said, kept) in [
            ("HTTPS://A.Example:443", "https://a.example/"),
            ("https://a.example/x/../cb", "https://a.example/cb"),
            ("https://a.example/cb?x=Y#Z", "https://a.example/cb?x=Y#Z"),
            ("http://LOCALHOST:8080/cb", "http://localhost:8080/cb"),
        ] {
            let mut v = Violations::default();
            let mut value = said.to_owned();
            text(
                &mut value,
                &At::root().field("f"),
                true,
                &takes(256, 5),
                &mut v,
            );
            assert!(v.0.is_empty(), "{said}");
            assert_eq!(value, kept);
        }
        // What fits as it is said, but not as it is kept.
        let said = "https://a.example/\"\"";
        assert_eq!(faults(said, takes(said.len(), 5)).len(), 1);
        assert!(faults(said, takes(said.len() + 4, 5)).is_empty());
    }

    #[test]
    fn paths_name_the_place() {
        let root = At::root();
        let member = root.item("requests", 3);
        assert_eq!(member.field("name").to_string(), "requests[3].name");
    }
}
