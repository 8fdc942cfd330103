//! The keys that lie outside the database, all derived from one master key (HKDF-SHA256): whoever has only the database can
//! neither forge an audit chain or a page token, nor read a sealed value.

use std::{fmt, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use aws_lc_rs::{aead, hkdf, hmac};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use crate::{
    env::Env,
    error::{Error, Result},
};

/// A 32-byte MAC.
pub type Mac = [u8; 32];

/// What a derived key is for; one for each, so that a value made for one purpose is worthless for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Compares requests of one `request_id` (COM-4).
    Request,
    /// Chains audit events (COM-11).
    Audit,
    /// Authenticates page tokens and cursors (COM-6).
    Page,
    /// Hashes secrets that the service made itself: temporary passwords, keys, refresh tokens (PWD-2).
    Secret,
    /// Seals what must be read again: signing keys, texts of mails.
    Seal,
    /// Tells whether two processes have the same master key; stored in the database.
    Fingerprint,
}

const PURPOSES: [Purpose; 6] = [
    Purpose::Request,
    Purpose::Audit,
    Purpose::Page,
    Purpose::Secret,
    Purpose::Seal,
    Purpose::Fingerprint,
];

/// The derived keys. Nothing of them can be printed.
pub struct Keys {
    macs: Vec<hmac::Key>,
    seal: aead::RandomizedNonceKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(withheld)")
    }
}

struct Length;
impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

impl Keys {
    /// Derives all keys from the master key.
    ///
    /// # Errors
    /// If the master key is not 32 bytes of which at least 16 differ: a default or typed-in secret is refused (ATK-19).
    pub fn derive(master: &[u8]) -> Result<Self> {
        let mut distinct = master.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if master.len() != 32 || distinct.len() < 16 {
            return Err(Error::internal(
                "the master key must be 32 random bytes: `openssl rand -base64 32` makes one",
            ));
        }
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"entente master key v1").extract(master);
        let expand = |label: &str| -> Result<Zeroizing<[u8; 32]>> {
            let mut out = Zeroizing::new([0; 32]);
            prk.expand(&[label.as_bytes()], Length)
                .and_then(|okm| okm.fill(&mut *out))
                .map_err(|_| Error::internal("HKDF failed"))?;
            Ok(out)
        };
        let mut macs = Vec::with_capacity(PURPOSES.len());
        for purpose in PURPOSES {
            macs.push(hmac::Key::new(
                hmac::HMAC_SHA256,
                &*expand(&format!("{purpose:?}"))?,
            ));
        }
        let seal =
            aead::RandomizedNonceKey::new(&aead::AES_256_GCM_SIV, &*expand("AES-256-GCM-SIV")?)
                .map_err(|_| Error::internal("no sealing key"))?;
        Ok(Self { macs, seal })
    }

    /// The MAC of several parts, each with its length, so that no two lists of parts give the same input.
    #[must_use]
    pub fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> Mac {
        let mut context = hmac::Context::with_key(&self.macs[purpose as usize]);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Encrypts and authenticates; `place` (table, column, row) binds the value to where it lies.
    ///
    /// # Errors
    /// Internal, if the primitive fails.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let mut text = plain.to_vec();
        let nonce = self
            .seal
            .seal_in_place_append_tag(aead::Aad::from(place.as_bytes()), &mut text)
            .map_err(|_| Error::internal("sealing failed"))?;
        let mut out = nonce.as_ref().to_vec();
        out.extend_from_slice(&text);
        Ok(out)
    }

    /// Opens what `seal` made for the same place.
    ///
    /// # Errors
    /// Internal, if it was altered, moved, or sealed under another master key.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let fault = || {
            Error::internal(format!(
                "{place}: the sealed value was altered, or the master key is another"
            ))
        };
        let (nonce, text) = sealed.split_at_checked(aead::NONCE_LEN).ok_or_else(fault)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| fault())?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self
            .seal
            .open_in_place(nonce, aead::Aad::from(place.as_bytes()), &mut text)
            .map_err(|_| fault())?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

/// Whether a master key as it is configured, base64, can be one.
#[must_use]
pub fn is_good(configured: &str) -> bool {
    let decoded = BASE64_STANDARD
        .decode(configured.trim())
        .map(Zeroizing::new);
    decoded.is_ok_and(|master| Keys::derive(&master).is_ok())
}

/// Reads the master key from `configured` (base64), else from the file; which is made if it isn't there, but not for a database that was made
/// with another one.
///
/// # Errors
/// If what is there is no 32 bytes in base64, or the file can't be read or written, or is missing.
pub fn load(configured: Option<&str>, file: &Path, is_new: bool, env: &Env) -> Result<Keys> {
    let decode = |text: &str, from: &str| {
        BASE64_STANDARD
            .decode(text.trim())
            .map(Zeroizing::new)
            .map_err(|_| {
                Error::internal(format!("{from}: the master key must be base64 of 32 bytes"))
            })
    };
    if let Some(text) = configured {
        return Keys::derive(&decode(text, "ENTENTE_MASTER_KEY")?);
    }
    let place = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => Keys::derive(&decode(&text, &place)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_new => {
            Err(Error::internal(format!(
                "{place} is missing; put back the one that this database was made with, or set ENTENTE_MASTER_KEY to what is in it"
            )))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = Zeroizing::new(env.bytes::<32>());
            let fault = |e: std::io::Error| Error::internal(format!("{place}: {e}"));
            let mut out = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)
                .map_err(fault)?;
            out.write_all(BASE64_STANDARD.encode(*key).as_bytes())
                .and_then(|()| out.sync_all())
                .map_err(fault)?;
            Keys::derive(&*key)
        }
        Err(e) => Err(Error::internal(format!("{place}: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&Env::seeded(1, 0).bytes::<32>()).unwrap()
    }

    #[test]
    fn sealed_values_open_only_in_their_place() {
        let keys = keys();
        let sealed = keys.seal("signing_keys.private/1", b"secret").unwrap();
        assert_eq!(
            &**keys.open("signing_keys.private/1", &sealed).unwrap(),
            b"secret"
        );
        assert!(keys.open("signing_keys.private/2", &sealed).is_err());
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert!(keys.open("signing_keys.private/1", &altered).is_err());
        }
        assert!(keys.open("signing_keys.private/1", &sealed[..5]).is_err());
    }

    // proves ATK-19
    #[test]
    fn typed_in_master_keys_are_refused() {
        assert!(Keys::derive(&[0; 32]).is_err());
        assert!(Keys::derive(b"changemechangemechangemechangeme").is_err());
        assert!(Keys::derive(&[1, 2, 3]).is_err());
    }

    #[test]
    fn macs_tell_parts_apart() {
        let keys = keys();
        assert_ne!(
            keys.mac(Purpose::Page, &[b"ab", b"c"]),
            keys.mac(Purpose::Page, &[b"a", b"bc"])
        );
        assert_ne!(
            keys.mac(Purpose::Page, &[b"ab"]),
            keys.mac(Purpose::Secret, &[b"ab"])
        );
    }
}
