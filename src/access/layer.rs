//! The gate before every function: the path's rule, the caller's tokens, the caller's limits. A call that needs a principal and brings
//! none ends here: its body is never decoded.

use std::{
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, request::Parts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport::server::TcpConnectInfo};
use tower::{Layer, Service};

use super::{
    principal::{Authenticated, Caller},
    rules,
};
use crate::{
    app::{App, Call},
    error::{Error, Language, Reason, Result},
};

/// The header of the person for whom an internal service acts.
pub const ON_BEHALF: &str = "entente-on-behalf";
/// The header in which an internal service says its client's address.
pub const CLIENT_ADDRESS: &str = "entente-client-address";

/// A call's deadline, put there by the deadline layer.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// A call's trace, put there by the trace layer.
#[derive(Clone, Debug)]
pub struct Trace(pub String);

/// Makes the gate.
#[derive(Clone)]
pub struct Gate(pub App);

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            app: self.0.clone(),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    app: App,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let app = self.app.clone();
        Box::pin(async move {
            if stands_outside(request.uri().path()) {
                return inner.call(request).await;
            }
            // The body is not shared between threads; only what comes before it is looked at.
            let (parts, body) = request.into_parts();
            let entered = enter(&app, &parts).await;
            request = Request::from_parts(parts, body);
            match entered {
                Ok(call) => {
                    request.extensions_mut().insert(call);
                    inner.call(request).await
                }
                Err(error) => {
                    let language = language(request.headers());
                    tracing::debug!(%error, path = request.uri().path(), "refused at the gate");
                    Ok(error.to_status(language).into_http())
                }
            }
        })
    }
}

/// Only health and reflection stand outside (COM-1).
#[must_use]
pub fn stands_outside(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.")
}

/// Whether the content is gRPC with protobuf messages, the only one spoken here.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .unwrap_or("")
        .trim();
    matches!(kind, "application/grpc" | "application/grpc+proto")
}

async fn enter(app: &App, parts: &Parts) -> Result<Call> {
    let path = parts.uri.path();
    let rule = rules::of_path(path).ok_or_else(|| Error::unimplemented(path))?;
    let (headers, extensions) = (&parts.headers, &parts.extensions);
    if !is_grpc(headers) {
        return Err(Error::malformed("the content-type isn't application/grpc"));
    }
    let peer = extensions
        .get::<TcpConnectInfo>()
        .and_then(TcpConnectInfo::remote_addr)
        .as_ref()
        .map(SocketAddr::ip);
    let mut caller = Caller {
        who: None,
        via: None,
        address: peer,
        language: language(headers),
        trace_id: extensions
            .get::<Trace>()
            .map_or_else(String::new, |t| t.0.clone()),
    };
    let deadline = extensions
        .get::<Deadline>()
        .map_or_else(|| Instant::now() + Duration::from_secs(60), |d| d.0);
    let sent = headers.contains_key(http::header::AUTHORIZATION) || headers.contains_key(ON_BEHALF);
    let authenticates = if rule.is_open() {
        !rule.ignores_caller() && sent
    } else {
        true
    };
    if authenticates && let Err(error) = authenticate(app, headers, &mut caller).await {
        let call = Call {
            rule,
            caller,
            deadline,
            gone: CancellationToken::new(),
        };
        return Err(app.refuse(&call, &Vec::new(), error).await);
    }
    if !authenticates {
        // Public methods ignore the header; a portal's service may still say for whom it signs in (COM-16).
        let said = said_address(app, headers, &caller).await?;
        caller.address = said.or(caller.address);
    }
    app.limits.take(&caller, rule)?;
    Ok(Call {
        rule,
        caller,
        deadline,
        gone: CancellationToken::new(),
    })
}

async fn authenticate(app: &App, headers: &HeaderMap, caller: &mut Caller) -> Result<()> {
    let own = bearer(headers, http::header::AUTHORIZATION.as_str())?;
    let own = own.ok_or_else(|| Error::unauthenticated(Reason::CredentialsMissing))?;
    let own = verify(app, own).await?;
    match bearer(headers, ON_BEHALF)? {
        Some(token) => {
            let person = verify(app, token).await?;
            // A person's token in place of the service's, or a service's in place of the person's, is no way in.
            if own.principal.is_person() || !person.principal.is_person() {
                // Whoever tries is known, and stands in the audit.
                caller.who = Some(own);
                return Err(Error::refused(Reason::OnBehalfRefused));
            }
            caller.who = Some(person);
            caller.via = Some(own);
        }
        None => caller.who = Some(own),
    }
    if let Some(said) = said_address(app, headers, caller).await? {
        caller.address = Some(said);
    }
    Ok(())
}

/// The one bearer token of a header. Doubled, empty or malformed ones are refused, never passed over (ATK-16).
fn bearer<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let refused = || Error::unauthenticated(Reason::TokenInvalid);
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(refused());
    }
    let text = value.to_str().map_err(|_| refused())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains([' ', ',']) {
        return Err(refused());
    }
    Ok(Some(token))
}

async fn verify(app: &App, token: &str) -> Result<Authenticated> {
    let now = app.now().await?;
    if let Some(who) = app.tokens.verify(token, now)? {
        return Ok(who);
    }
    // Another replica may have made a key.
    if app.tokens.may_look_again() {
        app.tokens.refresh(&app.db.read, &app.keys).await?;
        if let Some(who) = app.tokens.verify(token, now)? {
            return Ok(who);
        }
    }
    Err(Error::unauthenticated(Reason::TokenInvalid))
}

/// The client's address as an internal service says it; nobody else is believed, or asked for a good one.
///
/// # Errors
/// `INVALID_ARGUMENT` on the header if the service says no address, or several: another one would stand in the audit.
async fn said_address(app: &App, headers: &HeaderMap, caller: &Caller) -> Result<Option<IpAddr>> {
    if !headers.contains_key(CLIENT_ADDRESS) || !is_internal_service(app, headers, caller).await {
        return Ok(None);
    }
    match one_address(headers) {
        Some(said) => Ok(Some(said)),
        None => Err(Error::field(CLIENT_ADDRESS, "is not one IP address")),
    }
}

/// The address that the header says; none if it is doubled or no IP address.
fn one_address(headers: &HeaderMap) -> Option<IpAddr> {
    let mut all = headers.get_all(CLIENT_ADDRESS).iter();
    let said = all.next()?.to_str().ok()?.trim().parse().ok()?;
    all.next().is_none().then_some(said)
}

/// Whether the token is that of a service which may act for people.
async fn is_internal_service(app: &App, headers: &HeaderMap, caller: &Caller) -> bool {
    let service = match (caller.via, caller.who) {
        (Some(via), _) => via,
        (None, Some(who)) => who,
        (None, None) => {
            let Ok(Some(token)) = bearer(headers, http::header::AUTHORIZATION.as_str()) else {
                return false;
            };
            let Ok(who) = verify(app, token).await else {
                return false;
            };
            who
        }
    };
    if service.principal.is_person() {
        return false;
    }
    let held = super::grants::held(
        &app.db.read,
        service.principal.id,
        crate::store::scope_key::ScopeKey::Operator,
    );
    let (Ok(held), Ok(now)) = (held.await, app.now().await) else {
        return false;
    };
    let standing = super::grants::standing(&app.db.read, &service, now).await;
    standing.is_ok() && held.all.has(super::roles::Permission::OnBehalfAct)
}

/// The language of a request.
#[must_use]
pub fn language(headers: &HeaderMap) -> Language {
    headers
        .get(http::header::ACCEPT_LANGUAGE)
        .and_then(|v| v.to_str().ok())
        .map_or(Language::English, Language::accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "authorization";

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    // proves COM-1
    #[test]
    fn only_health_and_reflection_stand_outside() {
        for (path, outside) in [
            ("/grpc.health.v1.Health/Check", true),
            ("/grpc.health.v1.Health/Watch", true),
            (
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                true,
            ),
            ("/grpc.health.v1.Healthy/Check", false),
            ("/entente.directory.v1.UserService/GetUser", false),
            ("/", false),
        ] {
            assert_eq!(stands_outside(path), outside, "{path}");
        }
    }

    // proves COM-9
    #[test]
    fn only_protobuf_by_grpc_is_spoken() {
        for (kind, spoken) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            assert_eq!(
                is_grpc(&headers(&[("content-type", kind)])),
                spoken,
                "{kind}"
            );
        }
        assert!(!is_grpc(&headers(&[])));
    }

    // proves ATK-16
    #[test]
    fn a_header_has_one_bearer_token_or_none() {
        let token = |all: &[(&'static str, &str)]| {
            let found = bearer(&headers(all), TOKEN).ok()?.map(str::to_owned);
            Some(found)
        };
        assert_eq!(token(&[]), Some(None));
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let value = format!("{scheme} abc");
            assert_eq!(token(&[(TOKEN, &value)]), Some(Some("abc".to_owned())));
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "abc",
            "Basic abc",
            "Bearer a b",
            "Bearer a,b",
            "Bearer  a",
        ] {
            assert_eq!(token(&[(TOKEN, bad)]), None, "{bad:?}");
        }
        assert_eq!(token(&[(TOKEN, "Bearer a"), (TOKEN, "Bearer a")]), None);
    }

    // proves COM-16
    #[test]
    fn an_address_is_said_once() {
        let of = |all: &[&str]| {
            let all: Vec<_> = all.iter().map(|said| (CLIENT_ADDRESS, *said)).collect();
            one_address(&headers(&all)).map(|address| address.to_string())
        };
        assert_eq!(of(&[" 192.0.2.7 "]).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(&["2001:db8::7"]).as_deref(), Some("2001:db8::7"));
        for bad in [
            &[][..],
            &[""],
            &["portal"],
            &["192.0.2.7:80"],
            &["192.0.2.7, 192.0.2.8"],
            &["192.0.2.7", "192.0.2.7"],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    // proves COM-3
    #[test]
    fn errors_are_told_in_the_language_asked_for() {
        let of = |all: &[(&'static str, &str)]| language(&headers(all));
        assert_eq!(
            of(&[("accept-language", "fr-CH, en;q=0.5")]),
            Language::French
        );
        assert_eq!(
            of(&[("accept-language", "en, fr;q=0.5")]),
            Language::English
        );
        assert_eq!(of(&[]), Language::English);
    }
}
