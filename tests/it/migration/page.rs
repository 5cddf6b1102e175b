//! The page itself.

const PAGE: &str = include_str!("../../../docs/migration.md");

/// The tests that the page's code is taken from.
const TESTS: [&str; 6] = [
    include_str!("erlang.rs"),
    include_str!("ldc.rs"),
    include_str!("protocols/mqtt.rs"),
    include_str!("netty.rs"),
    include_str!("protocols.rs"),
    include_str!("shapes.rs"),
];

/// Code without what a formatter may change: white space, and a comma before a closing bracket.
fn squeezed(code: &str) -> String {
    let code: String = code.split_whitespace().collect();
    code.replace(",)", ")").replace(",}", "}")
}

#[test]
fn every_line_of_code_in_the_page_is_in_a_test() {
    let tests = squeezed(&TESTS.concat());
    let mut found = 0;
    let mut is_tested = |code: &str| {
        let code = squeezed(code);
        let is_there = tests.contains(code.trim_end_matches(','));
        assert!(is_there, "no test has: {code}");
        found += 1;
    };
    for (index, part) in PAGE.split("```").enumerate() {
        if index % 2 == 1 {
            // The lines of a block after the one that names its language, without imports.
            let lines = part
                .lines()
                .skip(1)
                .filter(|line| !line.is_empty() && !line.starts_with("use "));
            lines.for_each(&mut is_tested);
            continue;
        }
        // Code in backticks that builds something; the rest are names.
        let spans = part.split('`').skip(1).step_by(2);
        let code = spans.filter(|span| span.contains("::") || span.starts_with("codec."));
        code.for_each(&mut is_tested);
    }
    assert!(found > 60, "{found} lines of code were found");
}
