//! Any filter and any text.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

#[derive(Clone, Debug)]
enum Tree {
    Leaf(usize),
    Not(Box<Tree>, &'static str),
    And(Vec<Tree>, &'static str),
    Or(Vec<Tree>),
}

impl Tree {
    fn any() -> impl Strategy<Value = Tree> {
        let leaf = (0..LEAVES.len()).prop_map(Tree::Leaf);
        leaf.prop_recursive(3, 20, 3, |tree| {
            let not = (tree.clone(), select(vec!["NOT ", "NOT", "-"]));
            let and = (vec(tree.clone(), 1..4), select(vec![" ", " AND "]));
            prop_oneof![
                not.prop_map(|(tree, not)| Tree::Not(Box::new(tree), not)),
                and.prop_map(|(trees, and)| Tree::And(trees, and)),
                vec(tree, 1..4).prop_map(Tree::Or),
            ]
        })
    }

    fn text(&self) -> String {
        // Parentheses only where the grammar needs them.
        let operand = |tree: &Tree| match tree {
            Tree::And(..) => format!("({})", tree.text()),
            _ => tree.text(),
        };
        match self {
            Tree::Leaf(leaf) => LEAVES[*leaf].0.to_owned(),
            Tree::Not(tree, not) => match **tree {
                Tree::Leaf(_) if *not != "NOT" => format!("{not}{}", tree.text()),
                _ => format!("{not}({})", tree.text()),
            },
            Tree::And(trees, and) => trees.iter().map(Tree::text).collect::<Vec<_>>().join(and),
            Tree::Or(trees) => trees.iter().map(operand).collect::<Vec<_>>().join(" OR "),
        }
    }

    fn holds(&self, row: usize) -> bool {
        match self {
            Tree::Leaf(leaf) => LEAVES[*leaf].1.contains(&row),
            Tree::Not(tree, _) => !tree.holds(row),
            Tree::And(trees, _) => trees.iter().all(|tree| tree.holds(row)),
            Tree::Or(trees) => trees.iter().any(|tree| tree.holds(row)),
        }
    }
}

#[test]
fn any_filter_finds_what_it_says() {
    let db = Db::new();
    proptest!(|(tree in Tree::any())| {
        let expected: Vec<usize> = (0..ROWS.len()).filter(|row| tree.holds(*row)).collect();
        prop_assert_eq!(db.find(&tree.text()).unwrap(), expected, "{}", tree.text());
    });
}

#[test]
fn any_text_is_answered() {
    let db = Db::new();
    let tokens = "name state roles time active owner.id method = != < <= > >= : ( ) - * ' \" \\ % _ , \
                  AND OR NOT and ON BUYER true abc é 😀 \0 \u{85} name:' state=ON desc 1-2-3";
    let tokens: Vec<&str> = tokens.split(' ').chain([" "; 20]).collect();
    let soup = vec(select(tokens), 0..30).prop_map(|tokens| tokens.concat());
    let quoted = any::<String>().prop_map(|text| format!("name:\"{text}\" name='{text}*'"));
    let text = prop_oneof![soup, quoted, any::<String>(), "\\PC{0,700}"];
    let (column, descending) = (("t", "name"), false);
    let fields = ["name", "time"].map(|name| OrderField {
        name,
        column,
        descending,
    });
    proptest!(ProptestConfig::with_cases(2_000), |(text in text)| {
        let errors = [db.find(&text).err(), parse_order(&text, &fields).err()];
        for error in errors.into_iter().flatten() {
            prop_assert!(text.is_char_boundary(error.position), "{error}");
            prop_assert!(error.to_string().ends_with('.'), "{error}");
        }
    });
}
