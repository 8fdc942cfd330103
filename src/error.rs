//! The one error of the service, by what the caller can do about it, and its one mapping to `tonic::Status` (COM-3).
//!
//! What goes out is code, reason, metadata and the texts of `texts/*.json`; `context` stays inside, for the log.

use std::{collections::HashMap, fmt, sync::LazyLock, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

pub use crate::proto::access::ErrorReason as Reason;
use crate::{access::roles::Permission, store::scope_key::ScopeKey};

/// The result of nearly everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// The domain of `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "entente";

/// An error; boxed so that results stay small.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    reason: Reason,
    metadata: Vec<(&'static str, String)>,
    /// Field and description of each violation.
    fields: Vec<(String, String)>,
    /// A reason of its own of the violation at this place.
    field_reasons: Vec<(usize, Reason)>,
    resource: Option<(&'static str, String)>,
    retry_after: Option<Duration>,
    /// The key of a text that is told in place of the reason's.
    text: Option<&'static str>,
    /// What happened, for the log only.
    context: String,
    /// The transaction may succeed once a signing key was made.
    lacks_key: bool,
    /// The transaction may succeed if run again.
    again: bool,
    /// The transaction has to be run again with these scopes locked from the start.
    needs: Vec<ScopeKey>,
}

impl Error {
    fn new(code: Code, reason: Reason) -> Self {
        Self(Box::new(Inner {
            code,
            reason,
            metadata: Vec::new(),
            fields: Vec::new(),
            field_reasons: Vec::new(),
            resource: None,
            retry_after: None,
            text: None,
            context: String::new(),
            lacks_key: false,
            again: false,
            needs: Vec::new(),
        }))
    }

    /// Bad fields, all of them at once: (field, what is wrong and what would be right).
    #[must_use]
    pub fn invalid(fields: Vec<(String, String)>) -> Self {
        let mut error = Self::new(Code::InvalidArgument, Reason::InvalidFields);
        error.0.fields = fields;
        error
    }

    /// Bad fields, some of them for a reason of their own, which is the whole error's if it is that of all.
    #[must_use]
    pub fn invalid_for(fields: Vec<(String, String, Option<Reason>)>) -> Self {
        let own = |at: usize| fields.get(at).and_then(|(_, _, reason)| *reason);
        let shared = own(0).filter(|first| (0..fields.len()).all(|at| own(at) == Some(*first)));
        let field_reasons = (0..fields.len())
            .filter_map(|at| Some((at, own(at)?)))
            .collect();
        let mut error = Self::invalid(fields.into_iter().map(|(f, d, _)| (f, d)).collect());
        error.0.reason = shared.unwrap_or(error.0.reason);
        error.0.field_reasons = field_reasons;
        error
    }

    /// One bad field.
    #[must_use]
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid(vec![(field.into(), description.into())])
    }

    /// A bad argument with a reason of its own.
    #[must_use]
    pub fn argument(
        reason: Reason,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let mut error = Self::field(field, description);
        error.0.reason = reason;
        error
    }

    /// Who calls isn't known.
    #[must_use]
    pub fn unauthenticated(reason: Reason) -> Self {
        Self::new(Code::Unauthenticated, reason)
    }

    /// The caller may not; the same whether or not the resource exists.
    #[must_use]
    pub fn denied(permission: Permission) -> Self {
        Self::refused(Reason::PermissionMissing).with("permission", permission.name())
    }

    /// Only the principal itself may; no permission helps anybody else.
    #[must_use]
    pub fn not_oneself() -> Self {
        let mut error = Self::refused(Reason::PermissionMissing);
        error.0.text = Some("PERMISSION_MISSING.ONESELF");
        error
    }

    /// Not allowed, for a reason of its own.
    #[must_use]
    pub fn refused(reason: Reason) -> Self {
        Self::new(Code::PermissionDenied, reason)
    }

    /// There is no such resource, told to those who may know.
    #[must_use]
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Self {
        let mut error = Self::new(Code::NotFound, Reason::ResourceNotFound);
        error.0.resource = Some((kind, name.into()));
        error
    }

    /// Some of what a list names isn't there: those places of the list, and their names.
    #[must_use]
    pub fn none_found(kind: &'static str, field: &str, missing: Vec<(usize, String)>) -> Self {
        let first = missing.first().map(|(_, name)| name.clone());
        let mut error = Self::not_found(kind, first.unwrap_or_default());
        error.0.fields = missing
            .into_iter()
            .map(|(i, _)| (format!("{field}[{i}]"), "isn't there".to_owned()))
            .collect();
        error
    }

    /// Something is there already.
    #[must_use]
    pub fn exists(reason: Reason, field: &'static str, description: &'static str) -> Self {
        let mut error = Self::new(Code::AlreadyExists, reason);
        error
            .0
            .fields
            .push((field.to_owned(), description.to_owned()));
        error
    }

    /// The state of things doesn't allow it.
    #[must_use]
    pub fn precondition(reason: Reason) -> Self {
        Self::new(Code::FailedPrecondition, reason)
    }

    /// Something changed meanwhile; read again, then try again.
    #[must_use]
    pub fn aborted(reason: Reason) -> Self {
        Self::new(Code::Aborted, reason)
    }

    /// Too much or too often; `retry_after` says when it may go.
    #[must_use]
    pub fn exhausted(reason: Reason, retry_after: Option<Duration>) -> Self {
        let mut error = Self::new(Code::ResourceExhausted, reason);
        error.0.retry_after = retry_after;
        error
    }

    /// A cursor that is no longer kept.
    #[must_use]
    pub fn out_of_range(reason: Reason) -> Self {
        Self::new(Code::OutOfRange, reason)
    }

    /// The service can't right now.
    #[must_use]
    pub fn unavailable(reason: Reason, context: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Unavailable, reason);
        error.0.context = context.into();
        error.0.retry_after = Some(Duration::from_secs(1));
        error
    }

    /// The deadline passed.
    #[must_use]
    pub fn late() -> Self {
        Self::new(Code::DeadlineExceeded, Reason::DeadlinePassed)
    }

    /// The caller gave up.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Code::Cancelled, Reason::CallCancelled)
    }

    /// No such method.
    #[must_use]
    pub fn unimplemented(method: &str) -> Self {
        Self::new(Code::Unimplemented, Reason::UnknownMethod).with("method", method)
    }

    /// The message couldn't be decoded.
    #[must_use]
    pub fn malformed(what: &str) -> Self {
        Self::argument(Reason::MalformedMessage, "", what)
    }

    /// What the codec says of bytes that are no message: bare, like what the framework says, since it doesn't know the caller's language.
    /// `of_framework` makes an error of it.
    #[must_use]
    pub fn undecodable(what: &str) -> Status {
        #[expect(clippy::disallowed_methods, reason = "dressed by `of_framework`")]
        let status = Status::invalid_argument(what);
        status
    }

    /// What a bare status of the framework, or of our codec, means.
    #[must_use]
    pub fn of_framework(code: Code, message: &str, path: &str) -> Self {
        match code {
            Code::InvalidArgument => Self::malformed(message),
            Code::OutOfRange | Code::ResourceExhausted => {
                Self::exhausted(Reason::MessageTooLarge, None)
            }
            Code::Unimplemented if message.contains("compress") || message.contains("encoding") => {
                Self::malformed("the compression isn't supported; send identity")
            }
            Code::Unimplemented => Self::unimplemented(path),
            Code::DeadlineExceeded => Self::late(),
            Code::Cancelled => Self::cancelled(),
            Code::Unavailable => Self::unavailable(Reason::Overloaded, message.to_owned()),
            _ => Self::malformed("the message is malformed, was cut short or has no gRPC frame"),
        }
    }

    /// A fault of ours. `context` is for the log only.
    #[must_use]
    pub fn internal(context: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Internal, Reason::Internal);
        error.0.context = context.into();
        error
    }

    /// The transaction has to begin again with these scopes locked first.
    #[must_use]
    pub(crate) fn needs_scopes(scopes: Vec<ScopeKey>) -> Self {
        let mut error = Self::aborted(Reason::Conflict);
        error.0.needs = scopes;
        error.0.again = true;
        error
    }

    /// The same, with what led to it told first.
    #[must_use]
    pub(crate) fn explained(mut self, what: &str) -> Self {
        self.0.context = format!("{what}: {}", self.0.context);
        self
    }

    /// What the operator reads at a terminal: what happened, without the words of gRPC.
    #[must_use]
    pub fn plainly(&self) -> String {
        if self.0.context.is_empty() {
            self.to_string()
        } else {
            self.0.context.clone()
        }
    }

    /// The database asked for the transaction to be run again.
    #[must_use]
    pub(crate) fn contended(context: impl Into<String>) -> Self {
        let mut error = Self::aborted(Reason::Conflict);
        error.0.again = true;
        error.0.context = context.into();
        error
    }

    /// No key signs now: time has outrun them. One has to be made before the transaction is run again.
    #[must_use]
    pub(crate) fn no_key() -> Self {
        let mut error = Self::internal("no key signs now");
        error.0.lacks_key = true;
        error
    }

    /// Adds a metadatum of `ErrorInfo`; everything variable belongs there. Never a secret.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.metadata.push((key, shortened(value.into())));
        self
    }

    /// Adds the fields that are concerned, with what is to be done about each.
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<(String, String)>) -> Self {
        self.0.fields.extend(fields);
        self
    }

    /// Says that it speaks of whoever's token a field takes, a tenant's global admin's, and not of the caller. Faults of ours stay what they are.
    #[must_use]
    pub fn of_token(mut self, field: &'static str) -> Self {
        if self.is_ours() || self.0.again {
            return self;
        }
        self.0.text = Some("TOKEN.GLOBAL_ADMIN");
        self.with("field", field)
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The gRPC code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Whether it says nothing about the caller or its request: the service or its database failed.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self.0.code,
            Code::Internal | Code::Unavailable | Code::DeadlineExceeded
        )
    }

    /// Whether all that lacked is a signing key.
    pub(crate) fn lacks_key(&self) -> bool {
        self.0.lacks_key
    }

    /// Whether the transaction may be run again, and with which scopes locked first.
    pub(crate) fn again(&self) -> Option<&[ScopeKey]> {
        self.0.again.then_some(&self.0.needs)
    }

    /// The fields that are wrong.
    #[must_use]
    pub fn fields(&self) -> &[(String, String)] {
        &self.0.fields
    }

    /// The one place where a `Status` is made.
    #[must_use]
    pub fn to_status(&self, language: Language) -> Status {
        let inner = &*self.0;
        let reason = reason_name(inner.reason);
        let message = self.message(language);
        let metadata: HashMap<String, String> = inner
            .metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        match inner.code {
            Code::FailedPrecondition => {
                let subject = inner
                    .resource
                    .as_ref()
                    .map_or("", |(_, name)| name.as_str());
                details.add_precondition_failure_violation(reason, subject, message.clone());
            }
            Code::ResourceExhausted => {
                details.add_quota_failure_violation(reason, message.clone());
            }
            _ => {}
        }
        let mut bytes = 0;
        let fits = inner.fields.iter().take_while(|(field, description)| {
            let is_first = bytes == 0;
            bytes += field.len() + description.len();
            is_first || bytes <= MOST_OF_FIELDS
        });
        let mut violations: Vec<_> = fits
            .map(|(field, description)| FieldViolation::new(field, description))
            .collect();
        for (at, reason) in &inner.field_reasons {
            if let Some(violation) = violations.get_mut(*at) {
                reason_name(*reason).clone_into(&mut violation.reason);
            }
        }
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        if let Some((kind, name)) = &inner.resource {
            details.set_resource_info(*kind, name.clone(), "", message.clone());
        }
        if let Some(after) = inner.retry_after {
            details.set_retry_info(Some(after));
        }
        details.set_localized_message(language.tag(), message.clone());
        let english = if matches!(language, Language::English) {
            message
        } else {
            self.message(Language::English)
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let status = Status::with_error_details(inner.code, english, details);
        status
    }

    /// The text, with the values that it names.
    fn message(&self, language: Language) -> String {
        let own = self.0.text.unwrap_or(reason_name(self.0.reason));
        let mut message = language.text(own);
        for (key, value) in &self.0.metadata {
            message = message.replace(&format!("{{{key}}}"), value);
        }
        message
    }
}

/// Bytes of one metadatum, at most. Errors are headers, of which many clients take 8 KiB; and this one stands there up to five times.
const MOST_OF_METADATUM: usize = 800;
/// Bytes of the fields that are named and of what is said of them, at most; one is always named.
const MOST_OF_FIELDS: usize = 4_500;

/// A text that a header can carry, with a mark where it was cut.
fn shortened(mut text: String) -> String {
    if text.len() > MOST_OF_METADATUM {
        let end = (0..MOST_OF_METADATUM).rfind(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// The reason's name on the wire.
#[must_use]
pub fn reason_name(reason: Reason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// For the log: code, reason and context, never a field's value.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0.code, reason_name(self.0.reason))?;
        for (key, value) in &self.0.metadata {
            write!(f, " {key}={value}")?;
        }
        for (field, description) in &self.0.fields {
            write!(f, " [{field}: {description}]")?;
        }
        if !self.0.context.is_empty() {
            write!(f, ": {}", self.0.context)?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// The language of texts for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// French.
    French,
}

static ENGLISH: LazyLock<HashMap<String, String>> =
    LazyLock::new(|| texts(include_str!("texts/en.json")));
static FRENCH: LazyLock<HashMap<String, String>> =
    LazyLock::new(|| texts(include_str!("texts/fr.json")));

fn texts(json: &str) -> HashMap<String, String> {
    // A test holds every reason against both files, so a broken one never ships.
    serde_json::from_str(json).unwrap_or_default()
}

impl Language {
    /// The first of English and French that an `accept-language` header prefers (RFC 9110); English if neither.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let mut best = (Self::English, 0.0_f32);
        for item in header.split(',').take(20) {
            let mut parts = item.trim().split(';');
            let tag = parts.next().unwrap_or("").trim().to_ascii_lowercase();
            let weight = parts
                .find_map(|p| {
                    p.trim()
                        .strip_prefix("q=")
                        .and_then(|q| q.parse::<f32>().ok())
                })
                .unwrap_or(1.0);
            let language = match tag.split('-').next() {
                Some("fr") => Self::French,
                Some("en" | "*") => Self::English,
                _ => continue,
            };
            if weight > best.1 {
                best = (language, weight);
            }
        }
        best.0
    }

    /// The language of a tag that `tag` gave; English for any other.
    #[must_use]
    pub fn of_tag(tag: &str) -> Self {
        if tag == Self::French.tag() {
            Self::French
        } else {
            Self::English
        }
    }

    /// The BCP 47 tag.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    /// The words of a requirement, with its values.
    #[must_use]
    pub fn requirement(self, code: &str, values: &[(&str, &str)]) -> String {
        let mut text = self.text(&format!("REQUIREMENT.{code}"));
        for (key, value) in values {
            text = text.replace(&format!("{{{key}}}"), value);
        }
        text
    }

    fn text(self, reason: &str) -> String {
        let own = match self {
            Self::English => &ENGLISH,
            Self::French => &FRENCH,
        };
        own.get(reason)
            .or_else(|| ENGLISH.get(reason))
            .cloned()
            .unwrap_or_else(|| reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves COM-3
    #[test]
    fn every_reason_has_a_text_in_every_language() {
        for number in 1..200 {
            let Ok(reason) = Reason::try_from(number) else {
                continue;
            };
            let name = reason_name(reason);
            assert!(ENGLISH.contains_key(name), "{name} lacks an English text");
            assert!(FRENCH.contains_key(name), "{name} lacks a French text");
        }
    }

    // proves COM-3
    #[test]
    fn an_error_is_no_longer_than_clients_take_of_headers() {
        let long = || "payouts.settings.update on accounts/é, ".repeat(200);
        let fields = |length: usize| {
            let named = |i| (format!("requests[{i}].member.rights"), "x".repeat(length));
            (0..100).map(named).collect::<Vec<_>>()
        };
        for (error, named) in [
            (
                Error::refused(Reason::CannotGrantWhatYouLack).with("lacking", long()),
                0,
            ),
            (
                Error::precondition(Reason::NotAssignable).with("lacking", long()),
                0,
            ),
            (Error::invalid(fields(50)), 20),
            (Error::invalid(fields(4_600)), 1),
        ] {
            let status = error.to_status(Language::French);
            let told = status.get_details_bad_request();
            let told = told.map_or(0, |bad| bad.field_violations.len());
            assert!(told >= named, "{told}");
            let answer = status.into_http::<()>();
            let headers = answer.headers().iter();
            // As HTTP/2 counts them.
            let bytes: usize = headers.map(|(k, v)| k.as_str().len() + v.len() + 32).sum();
            assert!((1_000..8_192).contains(&bytes), "{bytes} {error:?}");
        }
    }

    #[test]
    fn language_follows_the_weights() {
        assert_eq!(Language::accepted("fr-CA, en;q=0.8"), Language::French);
        assert_eq!(Language::accepted("fr;q=0.1, en"), Language::English);
        assert_eq!(Language::accepted("de"), Language::English);
        assert_eq!(Language::accepted(""), Language::English);
    }
}
