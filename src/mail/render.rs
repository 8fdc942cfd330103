//! Texts of mails: templates in English and French; the HTML form is made of the same paragraphs, escaped.

use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use crate::error::{Error, Language, Result};

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(
            (concat!("en/", $name), include_str!(concat!("templates/en/", $name, ".txt"))),
            (concat!("fr/", $name), include_str!(concat!("templates/fr/", $name, ".txt"))),
        )*]
    };
}

const SOURCES: &[(&str, &str)] = sources![
    "password_reset",
    "rights_asleep",
    "recovery_address_changed",
    "tenant_created",
    "invitation",
    "rights_withheld",
    "rights_withheld_inviter",
    "identity_confirmation",
    "address_in_use",
    "email_change",
    "email_changed",
    "identity_closed",
    "password_recovery",
    "password_recovered",
    "key_expiring",
    "tenant_deleted",
    "tenant_unused",
    "contact_confirmation",
    "company_approval",
    "enrolment_disowned",
    "global_admin_asked",
    "draft_idle",
    "program_submitted",
    "program_enrolled",
    "domain_lapsed",
    "account_active",
    "step_action",
    "step_rejected",
    "account_rejected",
    "account_closed",
    "ownership_invitation",
    "ownership_consent",
    "ownership_notice",
    "ownership_begun",
    "ownership_ended",
    "recovery_announced",
    "recovery_announced_again",
    "recovery_link",
    "name_claim_filed",
    "name_claim_refused",
    "name_claim_granted",
    "name_claim_lost",
    "name_claim_overdue",
    "name_claim_kept",
    "name_claim_ended",
    "membership_claim",
    "partners_credential",
    "partner_made_admin",
    "partner_reset_admin",
    "partner_disabled_admin",
    "password_recovery_refused",
    "relationship_requested",
    "relationship_expired",
];

static ENVIRONMENT: LazyLock<std::result::Result<Environment<'static>, String>> =
    LazyLock::new(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|name| {
            if name.ends_with(".html") {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        for (name, source) in SOURCES {
            environment
                .add_template(name, source)
                .map_err(|e| e.to_string())?;
        }
        environment
            .add_template("frame.html", include_str!("templates/frame.html"))
            .map_err(|e| e.to_string())?;
        Ok(environment)
    });

/// A rendered mail.
#[derive(Debug)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// HTML.
    pub html: String,
}

/// Renders a mail. Values may come from callers: line breaks in them are taken out, so that none makes a header or a paragraph.
///
/// # Errors
/// Internal, if the template is unknown or a value is missing.
pub fn render(
    template: &str,
    language: Language,
    values: &serde_json::Map<String, serde_json::Value>,
) -> Result<Rendered> {
    let fault = |e: minijinja::Error| Error::internal(format!("mail {template}: {e}"));
    let environment = ENVIRONMENT
        .as_ref()
        .map_err(|e| Error::internal(e.clone()))?;
    let plain = values.iter().map(|(key, value)| {
        (
            key.as_str(),
            value
                .as_str()
                .unwrap_or_default()
                .replace(['\r', '\n'], " "),
        )
    });
    let values = minijinja::Value::from_pairs(plain);
    let whole = environment
        .get_template(&format!("{}/{template}", language.tag()))
        .and_then(|t| t.render(values))
        .map_err(fault)?;
    let (first, body) = whole.split_once('\n').unwrap_or((&whole, ""));
    let subject = first.strip_prefix("Subject: ").unwrap_or(first).to_owned();
    let paragraphs: Vec<String> = body
        .split("\n\n")
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect();
    let html = environment
        .get_template("frame.html")
        .and_then(|t| t.render(context! { language => language.tag(), subject => subject.clone(), paragraphs => paragraphs.clone() }))
        .map_err(fault)?;
    Ok(Rendered {
        subject,
        text: format!("{}\n", paragraphs.join("\n\n")),
        html,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Template;

    fn values(name: &str) -> serde_json::Map<String, serde_json::Value> {
        [
            "organisation",
            "drafts",
            "old_id",
            "by",
            "sign_in_name",
            "until",
            "scope",
            "domain",
            "origin",
            "link",
            "token",
            "rights",
            "email",
            "application",
            "hint",
            "publisher",
            "legal_name",
            "country",
            "contact",
            "account",
            "program",
            "record",
            "value",
            "asked",
            "reason",
            "from",
            "role",
            "claim",
            "claimed",
            "statement",
            "roles",
            "days",
            "message",
        ]
        .iter()
        .map(|k| ((*k).to_owned(), format!("<{k}>").into()))
        .chain([("name".to_owned(), name.into())])
        .collect()
    }

    // proves COM-15
    #[test]
    fn every_mail_renders_in_both_languages_as_text_and_html() {
        for template in Template::ALL {
            let english = render(template.name(), Language::English, &values("Ann")).unwrap();
            let french = render(template.name(), Language::French, &values("Ann")).unwrap();
            assert_ne!(english.subject, french.subject);
            assert!(english.text.len() > 80 && english.html.contains("<p>"));
            assert!(
                !english.html.contains("<organisation>")
                    && !english.html.contains("<sign_in_name>"),
                "values are escaped"
            );
        }
    }

    // proves ATK-5
    #[test]
    fn values_make_no_headers() {
        let rendered = render(
            "password_reset",
            Language::English,
            &values("Ann\r\nBcc: thief@example.com"),
        )
        .unwrap();
        assert!(!rendered.subject.contains('\n') && !rendered.text.contains("\nBcc:"));
    }
}
