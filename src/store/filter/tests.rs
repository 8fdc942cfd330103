mod any;

use super::{fault::*, *};
use sea_orm::sea_query::{
    IntoValueTuple, PostgresQueryBuilder, Query, SelectStatement, SqliteQueryBuilder,
};
use sea_orm::{
    Condition, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend,
    sea_query::Expr,
};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const fn field(name: &'static str, kind: Kind) -> Field {
    Field::new(name, ("t", name), kind)
}

const TEXT: Kind = Kind::Text(&[Trigrams {
    table: "t",
    column: "name",
}]);
const TIMES: Kind = Kind::Instant {
    parse: |s| {
        s.strip_prefix("2026-01-31T09:30:")?
            .strip_suffix("+02:00")?
            .parse()
            .ok()
    },
};
const IDS: Kind = Kind::Id {
    parse: |s| s.parse().ok(),
};
const FIELDS: &[Field] = &[
    field("name", TEXT),
    field("state", Kind::Enum(&[("ON", 1), ("OFF", 2)])),
    field("roles", Kind::Flags(&[("BUYER", 1), ("ADMIN", 6)])),
    field("time", TIMES),
    field("active", Kind::Bool),
    field("owner.id", IDS),
    field("method", Kind::Exact),
    Field::new("group", ("t", "id"), Kind::Paired(PAIRS)),
];
const PAIRS: Pairs = Pairs {
    table: "pairs",
    row: "row_id",
    with: "group_id",
    within: None,
    parse: |s| s.parse().ok(),
};
/// Which rows are paired with A.
const PAIRED: [i64; 2] = [1, 6];

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

#[derive(Clone, Copy)]
struct Row(
    Option<&'static str>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<bool>,
    Option<Uuid>,
    Option<&'static str>,
);

const ROWS: [Row; 7] = [
    Row(
        Some("acme corp"),
        Some(1),
        Some(1),
        Some(4),
        None,
        Some(A),
        None,
    ),
    Row(
        Some("the acme"),
        Some(2),
        Some(7),
        None,
        Some(true),
        None,
        Some("a.B/Get"),
    ),
    Row(
        Some(r"100%_\*"),
        None,
        Some(4),
        Some(5),
        Some(false),
        None,
        Some("a.b/get"),
    ),
    Row(
        Some(r#"1000x"\'"#),
        None,
        Some(0),
        Some(6),
        None,
        Some(B),
        Some("*"),
    ),
    Row(Some(""), Some(1), Some(8), None, None, None, Some("")),
    Row(Some("strauß-münchen"), None, None, None, None, None, None),
    Row(None, None, None, None, None, None, None),
];

/// Comparisons, and the rows that each should find.
const LEAVES: &[(&str, &[usize])] = &[
    (r#"name="Acme Corp""#, &[0]),
    ("name = ''", &[4]),
    ("name!='ACME corp'", &[1, 2, 3, 4, 5, 6]),
    ("name=ACME*", &[0]),
    ("name!=acme*", &[1, 2, 3, 4, 5, 6]),
    ("name:ACME", &[0, 1]),
    ("name:MÜNCH", &[5]),
    ("name:100%", &[2]),
    ("name=100_*", &[]),
    (r"name='100%_\\*'", &[2]),
    (r"name='100%_\\\*'", &[2]),
    (r"name='100%_\\\**'", &[2]),
    (r"name='100%_\\\*\**'", &[]),
    (r#"name:"_\\\*""#, &[2]),
    (r#"name:'x"\\\''"#, &[3]),
    ("state=ON", &[0, 4]),
    ("state:\"OFF\"", &[1]),
    ("state!=ON", &[1, 2, 3, 5, 6]),
    ("roles:BUYER", &[0, 1]),
    ("roles=ADMIN", &[1]),
    ("time=2026-01-31T09:30:5+02:00", &[2]),
    ("time!=2026-01-31T09:30:5+02:00", &[0, 1, 3, 4, 5, 6]),
    ("time<2026-01-31T09:30:5+02:00", &[0]),
    ("time <= '2026-01-31T09:30:5+02:00'", &[0, 2]),
    ("time>2026-01-31T09:30:5+02:00", &[3]),
    ("time>=2026-01-31T09:30:5+02:00", &[2, 3]),
    ("active=true", &[1]),
    ("active!=true", &[0, 2, 3, 4, 5, 6]),
    ("active=false", &[2]),
    ("owner.id=00000000-0000-0000-0000-00000000000a", &[0]),
    (
        "owner.id!=00000000-0000-0000-0000-00000000000a",
        &[1, 2, 3, 4, 5, 6],
    ),
    ("method=a.B/Get", &[1]),
    ("method!='a.B/Get'", &[0, 2, 3, 4, 5, 6]),
    (r"method='\*'", &[3]),
    ("method=''", &[4]),
    ("group=00000000-0000-0000-0000-00000000000a", &[1, 6]),
    (
        "group!=00000000-0000-0000-0000-00000000000a",
        &[0, 2, 3, 4, 5],
    ),
    ("group=00000000-0000-0000-0000-00000000000b", &[]),
];

fn query(condition: Condition) -> SelectStatement {
    Query::select()
        .column("id")
        .from("t")
        .cond_where(condition)
        .to_owned()
}

struct Db(Runtime, DatabaseConnection);

impl Db {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut options = ConnectOptions::new("sqlite::memory:");
            // A second connection would have a memory of its own.
            options.max_connections(1);
            let db = Database::connect(options).await.unwrap();
            let tables = r#"CREATE TABLE t (row_number INTEGER PRIMARY KEY, id bigint, name text, state bigint,
                roles bigint, time bigint, active boolean, "owner.id" uuid, method text);
                CREATE VIRTUAL TABLE t_search USING fts5 (name, content='t', content_rowid='row_number', tokenize='trigram');
                CREATE TABLE pairs (row_id bigint, group_id uuid)"#;
            db.execute_unprepared(tables).await.unwrap();
            let mut insert = Query::insert().into_table("t").to_owned();
            insert.columns(
                ["id"]
                    .into_iter()
                    .chain(FIELDS.iter().map(|field| field.name))
                    .filter(|name| *name != "group"),
            );
            for (id, Row(name, state, roles, time, active, owner, method)) in (0_i64..).zip(ROWS) {
                let values = (id, name, state, roles, time, active, owner, method);
                insert.values_panic(values.into_value_tuple().into_iter().map(Expr::val));
            }
            db.execute(&insert).await.unwrap();
            db.execute_unprepared("INSERT INTO t_search (t_search) VALUES ('rebuild')")
                .await
                .unwrap();
            let mut pairs = Query::insert().into_table("pairs").to_owned();
            pairs.columns(["row_id", "group_id"]);
            for row in PAIRED {
                pairs.values_panic([Expr::val(row), Expr::val(A)]);
            }
            db.execute(&pairs).await.unwrap();
            db
        });
        Self(runtime, connection)
    }

    fn rows(&self, query: &SelectStatement) -> Vec<usize> {
        let rows = self.0.block_on(self.1.query_all(query)).unwrap();
        rows.iter()
            .map(|row| row.try_get_by_index::<i64>(0).unwrap() as usize)
            .collect()
    }

    /// The rows that pass; all of them are among those that indexes find, if they do.
    fn find(&self, filter: &str) -> Result<Vec<usize>, FilterError> {
        let Some(filter) = parse(filter, FIELDS)? else {
            return Ok(self.rows(&query(Condition::all())));
        };
        let rows = self.rows(&query(filter.condition));
        if let Some(found) = filter.found {
            let found = self.rows(&found.ids(DbBackend::Sqlite, 1_000));
            assert!(
                rows.iter().all(|row| found.contains(row)),
                "{rows:?} {found:?}"
            );
        }
        Ok(rows)
    }
}

fn others(rows: &[usize]) -> Vec<usize> {
    (0..ROWS.len()).filter(|row| !rows.contains(row)).collect()
}

#[test]
fn comparisons_find_their_rows_and_negations_the_others() {
    let db = Db::new();
    for (filter, rows) in LEAVES {
        assert_eq!(db.find(filter).unwrap(), *rows, "{filter}");
        for not in [format!("NOT {filter}"), format!("-({filter})")] {
            assert_eq!(db.find(&not).unwrap(), others(rows), "{not}");
        }
    }
    assert_eq!(db.find(" \t\n").unwrap(), others(&[]));
}

#[test]
fn or_binds_tighter_than_and() {
    let db = Db::new();
    // Binding the other way round, the first three would also find row 1, 4 or 1.
    for (filter, rows) in [
        ("state=ON AND name='' OR state=OFF", vec![4]),
        ("name='' OR roles:BUYER AND state=OFF", vec![1]),
        ("state=OFF OR name='' state=ON", vec![4]),
        ("state=OFF OR (name='' AND state=ON)", vec![1, 4]),
        ("NOT state=ON OR name=''", vec![1, 2, 3, 4, 5, 6]),
        ("NOT (state=ON OR name:acme)", vec![2, 3, 5, 6]),
    ] {
        assert_eq!(db.find(filter).unwrap(), rows, "{filter}");
    }
}

#[test]
fn sql_binds_values_and_escapes_patterns_on_both_databases() {
    let filter = r#"name:"a'%_\\\*" roles:ADMIN OR -(state=ON active=true)"#;
    let query = query(parse(filter, FIELDS).unwrap().unwrap().condition);
    let sql = |pattern: &str, roles: [&str; 2], state: &str, active: &str| {
        let [mask, bits] = roles;
        let roles = format!(r#"("t"."roles" & {mask}) = {bits}"#);
        let state = format!(r#"(NOT "t"."state" = {state}) OR "t"."state" IS NULL"#);
        let active = format!(r#"(NOT "t"."active" = {active}) OR "t"."active" IS NULL"#);
        let rest = format!("({roles} OR ({state} OR ({active})))");
        format!(r#"SELECT "id" FROM "t" WHERE "t"."name" LIKE {pattern} AND {rest}"#)
    };
    let sqlite = sql(r"'%a''\%\_\\*%' ESCAPE '\'", ["6", "6"], "1", "TRUE");
    assert_eq!(query.to_string(SqliteQueryBuilder), sqlite);
    let postgres = sql(r"E'%a\'\\%\\_\\\\*%' ESCAPE E'\\'", ["6", "6"], "1", "TRUE");
    assert_eq!(query.to_string(PostgresQueryBuilder), postgres);
    let sqlite = sql(r"? ESCAPE '\'", ["?", "?"], "?", "?");
    assert_eq!(query.build(SqliteQueryBuilder).0, sqlite);
    let postgres = sql(r"$1 ESCAPE E'\\'", ["$2", "$3"], "$4", "$5");
    assert_eq!(query.build(PostgresQueryBuilder).0, postgres);
}

#[test]
fn indexes_find_what_must_pass_one_of_their_comparisons() {
    let sql = |filter: &str, backend| {
        let found = parse(filter, FIELDS).unwrap().unwrap().found?;
        let ids = found.ids(backend, 9);
        Some(match backend {
            DbBackend::Postgres => ids.to_string(PostgresQueryBuilder),
            _ => ids.to_string(SqliteQueryBuilder),
        })
    };
    let text = |text: &str| {
        format!(
            r#"SELECT "t"."id" AS "id" FROM "t_search" CROSS JOIN "t" WHERE "t"."row_number" = "t_search"."rowid" AND (t_search MATCH 'name : "{text}"')"#
        )
    };
    let a = "00000000-0000-0000-0000-00000000000a";
    let pairs =
        format!(r#"SELECT "pairs"."row_id" AS "id" FROM "pairs" WHERE "pairs"."group_id" = '{a}'"#);
    for (filter, found) in [
        ("name:acme", Some(text("acme"))),
        ("name='Acme Corp'", Some(text("acme corp"))),
        ("name=acme*", Some(text("acme"))),
        (r#"name:"a\"bcd""#, Some(text(r#"a""bcd"#))),
        ("state=ON name:acme", Some(text("acme"))),
        ("name:acme name:corporation", Some(text("corporation"))),
        ("NOT name!=acme", Some(text("acme"))),
        ("NOT (state=ON OR name!=acme)", Some(text("acme"))),
        // Not by all that must pass, or not of letters and digits that an index knows.
        ("name:acme OR state=ON", None),
        ("NOT name:acme", None),
        ("name!=acme", None),
        ("name:'a-b.c'", None),
        ("name=''", None),
        ("state=ON", None),
    ] {
        let found = found.map(|found| format!("{found} LIMIT 9"));
        assert_eq!(sql(filter, DbBackend::Sqlite), found, "{filter}");
    }
    let either = format!("name:acme OR group={a}");
    let union = format!("{} UNION ALL {pairs} LIMIT 9", text("acme"));
    assert_eq!(sql(&either, DbBackend::Sqlite), Some(union));
    let like = r#"SELECT "t"."id" AS "id" FROM "t" WHERE "t"."name" LIKE '%acme%' ESCAPE E'\\'"#;
    let union = format!("{like} UNION ALL ({pairs}) LIMIT 9");
    assert_eq!(sql(&either, DbBackend::Postgres), Some(union));
    let both = format!("name:acme group={a}");
    let found = format!("{pairs} LIMIT 9");
    assert_eq!(sql(&both, DbBackend::Postgres), Some(found));
}

#[test]
fn pairs_are_looked_up_row_by_row_within_what_the_row_lies_in() {
    let within = Pairs {
        within: Some(("account_id", ("t", "account_id"))),
        ..PAIRS
    };
    let fields = &[Field::new("group", ("t", "id"), Kind::Paired(within))];
    let a = "00000000-0000-0000-0000-00000000000a";
    let sql = |filter: &str| {
        let condition = parse(filter, fields).unwrap().unwrap().condition;
        query(condition).to_string(SqliteQueryBuilder)
    };
    let pair = format!(
        r#"EXISTS(SELECT 1 FROM "pairs" WHERE "pairs"."group_id" = '{a}' AND "pairs"."row_id" = "t"."id" AND "pairs"."account_id" = "t"."account_id")"#
    );
    assert_eq!(
        sql(&format!("group={a}")),
        format!(r#"SELECT "id" FROM "t" WHERE {pair}"#)
    );
    assert_eq!(
        sql(&format!("group!={a}")),
        format!(r#"SELECT "id" FROM "t" WHERE (NOT {pair}) OR "t"."id" IS NULL"#)
    );
}

#[test]
fn errors_say_where_and_what() {
    use Problem::{OperatorNotAllowed as Not, Syntax};
    let bad = |expected: &str| Problem::BadValue(expected.to_owned());
    let unknown = || Problem::UnknownField(FIELDS.iter().map(|field| field.name).collect());
    for (filter, position, field, problem) in [
        ("name='é", 5, "name", Syntax(UNQUOTED)),
        (r#"name="é\n""#, 8, "name", Syntax(BACKSLASH)),
        (r#"name="\"#, 6, "name", Syntax(BACKSLASH)),
        ("name=é'", 7, "", Syntax(SPACE)),
        ("name=a=b", 6, "", Syntax(SPACE)),
        ("(state=ON)(state=ON)", 10, "", Syntax(SPACE)),
        ("state==ON", 6, "state", Syntax(VALUE)),
        ("state=", 6, "state", Syntax(VALUE)),
        ("state= OR state=ON", 7, "state", Syntax(VALUE)),
        ("roles:(BUYER OR ADMIN)", 6, "roles", Syntax(VALUE)),
        ("active", 6, "active", Syntax(OPERATOR)),
        ("active AND state=ON", 7, "active", Syntax(OPERATOR)),
        ("state!ON", 5, "state", Syntax(OPERATOR)),
        ("=ON", 0, "", Syntax(COMPARISON)),
        ("()", 1, "", Syntax(COMPARISON)),
        ("- state=ON", 1, "", Syntax(COMPARISON)),
        ("AND state=ON", 0, "", Syntax(COMPARISON)),
        ("state=ON AND", 12, "", Syntax(COMPARISON)),
        ("state=ON OR AND state=ON", 12, "", Syntax(COMPARISON)),
        ("NOT NOT state=ON", 4, "", Syntax(COMPARISON)),
        ("'state'=ON", 0, "", Syntax(COMPARISON)),
        ("state=ON (", 10, "", Syntax(COMPARISON)),
        ("state=ON or active=true", 9, "", Syntax(CAPITALS)),
        ("state=ON)", 8, "", Syntax(STRAY)),
        ("((state=ON)", 0, "", Syntax(UNCLOSED)),
        ("name='\0'", 6, "", Syntax(CONTROL)),
        ("é=1 foo", 0, "é", unknown()),
        ("state=ON -Name:x", 10, "Name", unknown()),
        ("name > a", 5, "name", Not(&["=", "!=", ":"])),
        ("state<=ON", 5, "state", Not(&["=", "!=", ":"])),
        ("roles!=BUYER", 5, "roles", Not(&[":", "="])),
        ("time:1", 4, "time", Not(&["=", "!=", "<", "<=", ">", ">="])),
        ("active<true", 6, "active", Not(&["=", "!="])),
        ("owner.id:7", 8, "owner.id", Not(&["=", "!="])),
        ("method:get", 6, "method", Not(&["=", "!="])),
        ("group:x", 5, "group", Not(&["=", "!="])),
        ("group=x", 6, "group", bad(RESOURCE)),
        ("name:éa", 5, "name", Problem::TooShortForSubstring),
        ("name=*", 5, "name", bad(STAR)),
        ("name=*a", 5, "name", bad(STAR)),
        ("name='a*b*'", 5, "name", bad(STAR)),
        ("name:abc*", 5, "name", bad(STAR)),
        ("state = on", 8, "state", bad("one of ON, OFF")),
        ("roles:*", 6, "roles", bad("one of BUYER, ADMIN")),
        ("time<yesterday", 5, "time", bad(TIME)),
        ("active=TRUE", 7, "active", bad("true or false")),
        ("owner.id=me", 9, "owner.id", bad(RESOURCE)),
        ("method=a.*", 7, "method", bad(WHOLE)),
    ] {
        let field = Some(field.to_owned()).filter(|field| !field.is_empty());
        let expected = FilterError {
            position,
            field,
            problem,
        };
        assert_eq!(parse(filter, FIELDS).unwrap_err(), expected, "{filter}");
    }
    let error = parse("state=ON a\u{202e}b:1", &FIELDS[..2]).unwrap_err();
    let expected = "There is no such field here; use one of name, state.";
    assert_eq!(
        error.to_string(),
        format!(r#"At byte 9, field "a\u{{202e}}b": {expected}"#)
    );
}

#[test]
fn limits_hold() {
    let end = |filter: String| match parse(&filter, FIELDS) {
        Ok(_) => (filter.len(), None),
        Err(error) => (error.position, Some(error.problem)),
    };
    let many = |terms| vec!["active=true"; terms].join(" ");
    assert_eq!(end(many(MAX_TERMS)), (599, None));
    assert_eq!(end(many(MAX_TERMS + 1)), (600, Some(Problem::TooManyTerms)));
    let nested = |depth| format!("{}active=true{}", "NOT(".repeat(depth), ")".repeat(depth));
    assert_eq!(Db::new().find(&nested(MAX_DEPTH)).unwrap(), [1]);
    assert_eq!(end(nested(MAX_DEPTH + 1)), (83, Some(Problem::TooDeep)));
    assert_eq!(end("(".repeat(MAX_BYTES)), (20, Some(Problem::TooDeep)));
    let long = |chars| format!("name='a{}'", "é".repeat(chars));
    assert_eq!(end(long(996)), (2_000, None));
    assert_eq!(end(long(997)), (1_999, Some(Problem::TooLong)));
}

#[test]
fn order_takes_one_field_and_a_direction() {
    let order_field = |name, descending| OrderField {
        name,
        column: ("t", name),
        descending,
    };
    let fields = [order_field("time", true), order_field("name", false)];
    for (text, field, descending) in [
        ("", "time", true),
        (" ", "time", true),
        ("time", "time", false),
        ("time desc", "time", true),
        (" name\tasc ", "name", false),
        ("name  desc", "name", true),
    ] {
        let column = ("t", field);
        let expected = Order { column, descending };
        assert_eq!(parse_order(text, &fields), Ok(expected), "{text}");
    }
    assert!(!parse_order("", &fields[1..]).unwrap().descending);
    let unknown = || Problem::UnknownField(vec!["time", "name"]);
    for (text, position, problem) in [
        ("name,time", 4, Problem::Syntax(ONE_FIELD)),
        ("name desc, time", 9, Problem::Syntax(ONE_FIELD)),
        ("name desc asc", 10, Problem::Syntax(ONE_FIELD)),
        (",", 0, Problem::Syntax(ONE_FIELD)),
        ("name DESC", 5, Problem::Syntax(DIRECTION)),
        ("name time", 5, Problem::Syntax(DIRECTION)),
        (" -name", 1, unknown()),
        ("desc", 0, unknown()),
    ] {
        let error = parse_order(text, &fields).unwrap_err();
        assert_eq!(
            (error.position, error.problem),
            (position, problem),
            "{text}"
        );
    }
    let error = parse_order("", &[]).unwrap_err();
    assert_eq!(
        (error.field, error.problem),
        (None, Problem::UnknownField(vec![]))
    );
    let error = parse_order(&" ".repeat(MAX_BYTES + 1), &fields).unwrap_err();
    assert_eq!(error.problem, Problem::TooLong);
}
