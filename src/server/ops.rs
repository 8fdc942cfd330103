//! The HTTP port of operations: health for probes, and the public keys of access tokens.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{access::token, app::App, config::Config};

/// Answers over HTTP/1.1 until it is dropped.
pub(super) async fn serve_ops(app: App, listener: TcpListener) {
    // A scraper or two and a probe; more connections at once are somebody's mistake.
    let places = Arc::new(Semaphore::new(64));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(e) => {
                tracing::warn!(error = %e, "operations: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let app = app.clone();
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let app = app.clone();
                    async move {
                        Ok::<_, Infallible>(
                            answer_ops(&app, request.method(), request.uri().path()).await,
                        )
                    }
                });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            // A client that talks no HTTP is its own trouble.
            tokio::time::timeout(Duration::from_secs(60), connection)
                .await
                .ok();
            drop(place);
        });
    }
}

async fn answer_ops(app: &App, method: &http::Method, path: &str) -> Response<Full<bytes::Bytes>> {
    let reply = |status: u16, kind: &str, body: String| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() =
            http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        if let Ok(value) = http::HeaderValue::from_str(kind) {
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, value);
        }
        response
    };
    if method != http::Method::GET {
        return reply(405, "text/plain", "only GET\n".to_owned());
    }
    match path {
        "/livez" => reply(200, "text/plain", "alive\n".to_owned()),
        "/healthz" | "/readyz" => {
            if app.healthy.load(Ordering::SeqCst) {
                reply(200, "text/plain", "serving\n".to_owned())
            } else {
                reply(503, "text/plain", "not serving\n".to_owned())
            }
        }
        "/.well-known/jwks.json" => match token::jwks(app).await {
            Ok(keys) => {
                let keys: Vec<_> = keys
                    .iter()
                    .map(|k| serde_json::json!({"kty": k.kty, "crv": k.crv, "x": k.x, "kid": k.kid, "alg": k.alg, "use": k.r#use}))
                    .collect();
                reply(
                    200,
                    "application/jwk-set+json",
                    serde_json::json!({ "keys": keys }).to_string(),
                )
            }
            Err(_) => reply(
                503,
                "text/plain",
                "the database can't be reached\n".to_owned(),
            ),
        },
        "/.well-known/openid-configuration" => {
            let origin = &app.config.public_origin;
            let document = serde_json::json!({
                "issuer": origin,
                "jwks_uri": format!("{}/.well-known/jwks.json", keys_at(&app.config)),
                "id_token_signing_alg_values_supported": ["EdDSA"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
            });
            reply(200, "application/json", document.to_string())
        }
        _ => reply(404, "text/plain", "not found\n".to_owned()),
    }
}

/// Where clients find the keys: below the configured origin, which has to lead there; as long as none is configured, here.
fn keys_at(config: &Config) -> String {
    if config.public_origin == Config::default().public_origin {
        format!("http://{}", config.ops_listen)
    } else {
        config.public_origin.clone()
    }
}
