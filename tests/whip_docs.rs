//! `docs/whip.md` names tests; they are to exist.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let path = entry.path();
        let foreign = path.file_name().is_some_and(|name| name == "node_modules" || name == "venv");
        if path.is_dir() && !foreign {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).expect("text"));
        }
    }
}

#[test]
fn every_line_of_the_whip_table_names_tests_that_exist_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let document = fs::read_to_string(root.join("docs/whip.md")).expect("the document");
    let mut named = HashSet::new();
    for line in document.lines().filter(|line| line.starts_with("| ") && !line.contains("shown by"))
    {
        let shown = line.rsplit('|').nth(1).expect("a last cell").trim();
        assert!(!shown.is_empty(), "{line}");
        // Names of tests are sentences; other code in backquotes has no three underscores.
        let names =
            shown.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 3);
        named.extend(names.map(str::to_owned));
    }
    assert!(named.len() > 25, "{}", named.len());
    let missing: Vec<_> =
        named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
