/// Inserts the blank that a line lacks after its colon or dash: `load:true`, `-'127.0.0.1'`.
///
/// Documents of the Spring Cloud design circulate in that form, and YAML reads them as one long
/// text. Returns the repaired text and the lines, counted from 1, that were changed. Lines inside a
/// block scalar are left alone.
pub(crate) fn repair(text: &str) -> (String, Vec<usize>) {
    let mut repaired = Vec::new();
    let mut block: Option<usize> = None;
    let mut lines = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let blank = line.trim().is_empty();
        if block.is_some_and(|parent| !blank && indent <= parent) {
            block = None;
        }
        let fixed = if block.is_some() { None } else { repair_line(line) };
        if fixed.is_some() {
            repaired.push(index + 1);
        }
        if block.is_none() && opens_block_scalar(line) {
            block = Some(indent);
        }
        lines.push(fixed.unwrap_or_else(|| line.to_owned()));
    }
    (lines.join("\n"), repaired)
}

/// Tells whether any line may lack a blank.
pub(crate) fn needs_repair(text: &str) -> bool {
    text.split('\n').any(|line| repair_line(line).is_some())
}

fn opens_block_scalar(line: &str) -> bool {
    let end = line.trim_end().trim_end_matches(['+', '-']);
    end.ends_with(": |") || end.ends_with(": >")
}

fn repair_line(line: &str) -> Option<String> {
    let content = line.trim_start();
    let indent = line.get(..line.len() - content.len())?;
    if let Some(rest) = content.strip_prefix('-') {
        let first = rest.chars().next()?;
        let scalar = first == '\'' || first == '"' || first.is_alphabetic();
        return scalar.then(|| format!("{indent}- {rest}"));
    }
    let (key, value) = content.split_once(':')?;
    // Copies of the design's documents have `NFLoadBalancerRule className:com.kerwin.…`.
    let name = key.strip_suffix(" className").unwrap_or(key);
    let word = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let joined = !value.is_empty() && !value.starts_with([' ', '\t', '\r', '/']);
    (word && joined).then(|| format!("{indent}{key}: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_a_class_name_with_a_blank() {
        check("NFLoadBalancerRule className:a.B", "NFLoadBalancerRule className: a.B", &[1]);
        check("no word:a", "no word:a", &[]);
    }

    #[track_caller]
    fn check(text: &str, expected: &str, lines: &[usize]) {
        assert_eq!(repair(text), (expected.to_owned(), lines.to_vec()));
    }

    #[test]
    fn inserts_the_missing_blank() {
        check("load:true", "load: true", &[1]);
        check("a:\n  prodVersion:V1", "a:\n  prodVersion: V1", &[2]);
        check("  -'127.0.0.1'", "  - '127.0.0.1'", &[1]);
        check("  -本地", "  - 本地", &[1]);
        check("url:jdbc:mysql://h/d", "url: jdbc:mysql://h/d", &[1]);
    }

    #[test]
    fn leaves_alone_what_is_right() {
        for text in ["load: true", "a:", "- x", "--- ", "- 1", "-1", "http://x", "# a:b", "'a':b"] {
            check(text, text, &[]);
        }
    }

    #[test]
    fn leaves_block_scalars_alone() {
        check("a: |\n  b:c\n\n  d:e\nf:g", "a: |\n  b:c\n\n  d:e\nf: g", &[5]);
    }
}
