//! Doors: how principals get into the server, and what calls give to get in with.

use std::time::{Duration, Instant};

use entente::{proto::directory::SwitchTenantRequest, schedule};
use sea_orm::{ConnectionTrait as _, Statement};
use tonic::Response;
use uuid::Uuid;

use super::{
    state::{Kind, Password},
    world::{World, id_of},
};
use crate::{
    harness::{Caller, PASSWORD},
    people::{ask_recovery, number, recover, sign_in_by_key},
};

/// A token is taken anew after so long: it is good for 15 minutes, and deleting a tenant asks for a sign-in within 10.
const FRESH: Duration = Duration::from_secs(240);

/// A principal's doors into the server.
#[derive(Default)]
pub struct Door {
    pub name: String,
    /// A person's, or an application's client ID; of a guest the address that it was invited at.
    pub sign_in_name: String,
    /// A user that a local directory brought.
    pub user_name: String,
    /// The password if it is still a temporary one.
    pub temporary: Option<String>,
    /// The token of a link by which the person chooses one.
    pub choice: Option<String>,
    /// The recovery address, if it has one.
    pub email: String,
    /// Names and secrets of an application's keys, the newest last.
    pub keys: Vec<(String, String)>,
    pub invitation: String,
    /// The token of the invitation's mail.
    pub link: String,
    /// The last token, good or ended, and when it was taken.
    pub caller: Option<(Caller, Instant)>,
    pub live: bool,
    /// The key that it was taken with.
    pub signed_in_with: String,
}

impl Door {
    pub fn of(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

/// What a call gives that the model needn't know: doors.
#[derive(Default)]
pub struct Made {
    pub door: Option<Door>,
    pub password: Option<(usize, String)>,
    /// The token of a link by which somebody chooses a password.
    pub choice: Option<(usize, String)>,
}

impl Made {
    pub fn of(door: Door) -> Self {
        Self {
            door: Some(door),
            ..Self::default()
        }
    }

    pub fn password(of: usize, temporary: String) -> Self {
        Self {
            password: Some((of, temporary)),
            ..Self::default()
        }
    }

    pub fn choice(of: usize, token: String) -> Self {
        Self {
            choice: Some((of, token)),
            ..Self::default()
        }
    }
}

pub fn nothing<T>(_: Response<T>) -> Made {
    Made::default()
}

impl World<'_> {
    fn is_fresh(&self, who: usize) -> bool {
        let door = &self.doors[who];
        let since = door.caller.as_ref().map(|(_, since)| since.elapsed());
        door.live && since.is_some_and(|age| age < FRESH)
    }

    /// Somebody with a good token if it can have one, else with the last one.
    pub async fn caller(&mut self, who: usize) -> Option<Caller> {
        if self.model.signs_in(who) && !self.is_fresh(who) {
            let home = self.model.person(who);
            if home != who && !self.is_fresh(home) {
                self.sign_in(home).await;
            }
            self.sign_in(who).await;
        }
        let caller = self.doors[who].caller.as_ref();
        caller.map(|(caller, _)| caller.clone())
    }

    async fn sign_in(&mut self, who: usize) {
        let home = self.model.person(who);
        let door = &self.doors[who];
        let mut with = String::new();
        let caller = if home != who {
            let request = SwitchTenantRequest {
                tenant: self.tenant_names[self.model.principals[who].tenant].clone(),
                ..SwitchTenantRequest::default()
            };
            let at_home = self.doors[home].caller.as_ref().unwrap().0.sessions();
            let tokens = { at_home }.switch_tenant(request).await.unwrap();
            self.site.with_token(&tokens.into_inner().access_token)
        } else if self.model.principals[who].kind == Kind::Application {
            let (name, secret) = door.keys.last().unwrap();
            with.clone_from(name);
            let tokens = sign_in_by_key(self.site, &door.sign_in_name, secret).await;
            self.site.with_token(&tokens.unwrap().access_token)
        } else {
            self.sign_in_by_password(who).await
        };
        let door = &mut self.doors[who];
        door.caller = Some((caller, Instant::now()));
        door.live = true;
        door.signed_in_with = with;
    }

    /// Whoever has none of its own chooses one before.
    async fn sign_in_by_password(&mut self, who: usize) -> Caller {
        let door = &self.doors[who];
        let chosen_by = match self.model.principals[who].password {
            Password::Mailed => door.choice.clone(),
            Password::Void => {
                self.all_mails().await;
                ask_recovery(self.site, &door.sign_in_name).await.unwrap();
                Some(self.mailed_token(&door.email).await)
            }
            Password::Own | Password::Temporary => None,
        };
        if let Some(token) = &chosen_by {
            recover(self.site, token, PASSWORD).await.unwrap();
        }
        let caller = match &door.temporary {
            Some(temporary) if chosen_by.is_none() => {
                self.site.settle_in(&door.sign_in_name, temporary).await
            }
            _ => self.site.sign_in(&door.sign_in_name, PASSWORD).await,
        };
        let door = &mut self.doors[who];
        (door.temporary, door.choice) = (None, None);
        self.model.principals[who].password = Password::Own;
        caller
    }

    /// The token in the mail that just went to an address.
    pub async fn mailed_token(&self, to: &str) -> String {
        for _ in 0..12_000 {
            schedule::settle(&self.site.app).await.unwrap();
            let mails = self.mails().into_iter().rev();
            let found = mails
                .filter(|(address, _)| address == to)
                .find_map(|(_, token)| token);
            if let Some(token) = found {
                return token;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{}: no mail to {to}", self.at);
    }

    /// All mails that were sent since mails were asked for, when none is left to be sent: the server itself may have some in hand.
    pub async fn all_mails(&self) -> Vec<(String, Option<String>)> {
        let waiting = "SELECT COUNT(*) AS n FROM mails WHERE state = 1";
        for _ in 0..12_000 {
            schedule::settle(&self.site.app).await.unwrap();
            if number(self.site, waiting, []).await == 0 {
                return self.mails();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{}: mails aren't sent", self.at);
    }

    /// All mails that were written since this was asked, the newest last: to whom, and the token in them. They are removed, so that the folder stays
    /// small.
    pub fn mails(&self) -> Vec<(String, Option<String>)> {
        let folder = std::fs::read_dir(self.site.folder.join("mails"));
        let files = folder.into_iter().flatten().flatten().map(|f| f.path());
        let mut mails = Vec::new();
        let mut files: Vec<_> = files
            .filter(|f| f.extension().is_some_and(|e| e == "eml"))
            .collect();
        // Their names are UUIDv7s, which begin with the time.
        files.sort_unstable();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let text = text.replace("=\r\n", "").replace("=3D", "=");
            let to = text.lines().find_map(|l| l.strip_prefix("To: "));
            let token = text.split_once("entl_").map(|(_, rest)| {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                let token: String = rest.chars().take_while(|c| is_part(*c)).collect();
                format!("entl_{token}")
            });
            mails.push((to.unwrap_or_default().trim_end().to_owned(), token));
            std::fs::remove_file(file).unwrap();
        }
        mails
    }

    /// The identity that somebody made by accepting, whose answer tells of the guest only.
    pub async fn identity_at(&self, email: &str) -> String {
        let db = &self.site.app.db;
        let sql =
            "SELECT id FROM users WHERE tenant_id = $1 AND user_name_fold = $2 AND state <> 3";
        let values = [Uuid::nil().into(), email.into()];
        let statement = Statement::from_sql_and_values(db.backend, sql, values);
        let row = db.read.query_one_raw(statement).await.unwrap().unwrap();
        let id: Uuid = row.try_get("", "id").unwrap();
        format!("identities/{id}")
    }

    /// What a local directory brought: its call doesn't tell names.
    pub async fn brought(&self, who: usize) -> Door {
        let p = &self.model.principals[who];
        let (table, collection, name, there) = match p.kind {
            Kind::Group => ("user_groups", "groups", "''", "1 = 1"),
            Kind::Application => ("applications", "applications", "''", "1 = 1"),
            _ => ("users", "users", "user_name", "state <> 3"),
        };
        let sql = format!(
            "SELECT id, {name} AS name FROM {table} WHERE tenant_id = $1 AND external_id = $2 AND {there}"
        );
        let tenant = &self.tenant_names[p.tenant];
        let external = format!("e/{}", p.external.unwrap());
        let db = &self.site.app.db;
        let values = [id_of(tenant).into(), external.into()];
        let statement = Statement::from_sql_and_values(db.backend, sql, values);
        let Some(row) = db.read.query_one_raw(statement).await.unwrap() else {
            self.fail(&format!("{who} was not brought"));
        };
        let id: Uuid = row.try_get("", "id").unwrap();
        let user_name: String = row.try_get("", "name").unwrap();
        let sign_in_name = match p.kind {
            Kind::Member => format!("{user_name}@{}", self.domains[p.tenant]),
            _ => id.to_string(),
        };
        Door {
            sign_in_name,
            user_name,
            ..Door::of(format!("{tenant}/{collection}/{id}"))
        }
    }
}
