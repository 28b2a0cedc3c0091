//! What the text room measures, against the naive version of each question.

use mergecore::text::{compression, frames, languages, loops, scripts, units, Span};
use proptest::prelude::*;
use unicode_script::Script;

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// Texts that repeat: few letters, pieces said again.
fn repeating() -> impl Strategy<Value = Vec<char>> {
    let pieces = prop::collection::vec(("[ab c]{1,40}", 1..6_usize), 1..8);
    pieces.prop_map(|pieces| pieces.into_iter().map(|(piece, times)| piece.repeat(times)).collect::<String>().chars().collect())
}

mod naive {
    use mergecore::text::loops::Repeat;

    /// The longest stretch with x[i] == x[i - period] that holds `at`.
    pub fn stretch(text: &[char], at: usize, period: usize) -> Repeat {
        let same = |i: usize| i >= period && i < text.len() && text[i] == text[i - period];
        let mut start = at;
        while start > 0 && same(start - 1) {
            start -= 1;
        }
        let mut end = at;
        while same(end) {
            end += 1;
        }
        Repeat { start: start - period, end, period }
    }

    /// Is there a loop of at least `length` characters with a period up to `longest` that holds `at`?
    pub fn in_loop(text: &[char], at: usize, longest: usize, length: usize) -> bool {
        (1..=longest.min(at)).any(|period| {
            let repeat = stretch(text, at, period);
            text[at] == text[at - period] && repeat.is_loop() && repeat.end - repeat.start - period >= length
        })
    }

    pub fn shared(a: &[&str], b: &[&str]) -> usize {
        let mut rest = b.to_vec();
        a.iter().filter(|word| rest.iter().position(|other| other == *word).map(|at| rest.remove(at)).is_some()).count()
    }
}

proptest! {
    #[test]
    fn a_repeat_is_one_and_cannot_be_longer(text in repeating()) {
        for repeat in loops::repeats(&text, 12) {
            prop_assert_eq!(repeat, naive::stretch(&text, repeat.start + repeat.period, repeat.period));
            prop_assert!(repeat.end - repeat.start - repeat.period >= 12);
        }
    }

    #[test]
    fn every_loop_is_seen(before in "[a-z ]{0,60}", body in "[a-z ]{1,50}", times in 3..9_usize, after in "[a-z ]{0,60}") {
        let text = chars(&(before.clone() + &body.repeat(times) + &after));
        let found = loops::repeats(&text, 8);
        let first = before.chars().count();
        let last = first + body.chars().count() * times;
        // What lies inside a loop is inside one that was found, whatever its smallest period is.
        for at in (first + body.chars().count() + 8..last.saturating_sub(8)).filter(|&at| naive::in_loop(&text, at, 50, 16)) {
            prop_assert!(found.iter().any(|repeat| repeat.start <= at && at < repeat.end), "{} of {:?}: {:?}", at, text, found);
        }
    }

    #[test]
    fn units_are_all_that_is_no_space(text in "[a-z.!? \n。]{0,200}") {
        let text = chars(&text);
        let units = units::units(&text);
        prop_assert!(units.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let inside = |at: usize| units.iter().any(|unit| unit.start <= at && at < unit.end);
        prop_assert!((0..text.len()).all(|at| text[at].is_whitespace() || inside(at)));
        prop_assert!(units.iter().all(|unit| !text[unit.start].is_whitespace() && !text[unit.end - 1].is_whitespace()));
        prop_assert!(units.iter().all(|unit| !text[unit.start..unit.end].contains(&'\n')));
    }

    #[test]
    fn frames_are_of_units_that_share_their_words(lines in prop::collection::vec("(one|two|three|four|five)( (one|two|three|four|five|six)){2,5}", 1..12)) {
        let text = lines.join("\n");
        let runs = frames::runs(&chars(&text));
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let framed = (0..lines.len()).filter(|&i| {
            words[i.saturating_sub(8)..i].iter().any(|other| {
                2.0 * naive::shared(&words[i], other) as f64 >= 0.6 * (words[i].len() + other.len()) as f64
            })
        });
        prop_assert_eq!(runs.iter().map(|run| run.units).sum::<usize>(), framed.count());
        prop_assert!(runs.iter().all(|run| run.new <= run.words));
    }

    #[test]
    fn windows_cover_the_text(text in "[a-z ]{0,300}", size in 1..80_usize, step in 1..80_usize) {
        let text = chars(&text);
        let windows = compression::windows(&text, size, step);
        prop_assert_eq!(windows[0].0.start, 0);
        prop_assert_eq!(windows[windows.len() - 1].0.end, text.len());
        prop_assert!(windows.iter().all(|(window, ratio)| window.len() == size.min(text.len()) && *ratio > 0.0));
    }

    #[test]
    fn runs_of_a_script_hold_its_letters(text in "[a-zа-я一-十α-ω가-각 .1]{0,60}") {
        let text = chars(&text);
        let runs = scripts::runs(&text);
        let run_of = |at: usize| runs.iter().find(|run| run.start <= at && at < run.end);
        for (at, c) in text.iter().enumerate().filter(|(_, c)| c.is_alphabetic()) {
            let touched = |other: Option<&char>| other.is_some_and(|other| other.is_alphabetic());
            match run_of(at) {
                Some(run) if run.glued => prop_assert!(touched(text.get(run.end)) || touched(run.start.checked_sub(1).map(|i| &text[i]))),
                Some(run) => prop_assert!(!touched(text.get(run.end)) && run.script != Script::Latin),
                None => prop_assert!(c.is_ascii()),
            }
        }
        prop_assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }

    #[test]
    fn any_text_can_be_measured(text in any::<String>()) {
        let text = chars(&text);
        loops::repeats(&text, 8);
        frames::runs(&text);
        compression::windows(&text, 600, 300);
        scripts::runs(&text);
        for sentence in languages::sentences(&text) {
            prop_assert!(sentence.start < sentence.end && sentence.end <= text.len());
        }
    }
}

#[test]
fn a_long_text_of_copies_takes_one_pass() {
    let sentence = |i: usize| format!("Sentence number {i} says something of its own. ");
    let half: String = (0..20_000).map(sentence).collect();
    let text = chars(&(half.clone() + "And again: " + &half));
    let longest = loops::repeats(&text, 100).into_iter().map(|repeat| repeat.end - repeat.start - repeat.period).max();
    assert!(longest >= Some(half.len()));
}

#[test]
fn a_loop_shrinks_more_than_prose() {
    let prose = "The harbour was quiet when the first boats came in, and nobody on the quay looked up from the nets. ";
    let ratio = |text: &str| compression::windows(&chars(text), 600, 300)[0].1;
    assert!(ratio(prose) < 2.0);
    assert!(ratio(&prose.repeat(6)) > 4.0);
    assert_eq!(compression::windows(&[], 600, 300), [(Span { start: 0, end: 0 }, 1.0)]);
}

#[test]
fn a_counter_makes_no_new_frame() {
    let text: String = (4..40).map(|i| format!("Step {i}: Repeat the step {}.\n", i - 1)).collect();
    let runs = frames::runs(&chars(&text));
    assert_eq!((runs.len(), runs[0].units, runs[0].new), (1, 35, 0));
}

#[test]
fn languages_are_told_apart() {
    let of = |text: &str| languages::sentences(&chars(text)).iter().map(|sentence| sentence.language).collect::<Vec<_>>();
    assert_eq!(of("The leaves use light to make sugar, and it is carried to all parts of the plant."), [Some("en")]);
    assert_eq!(of("Die Wurzeln nehmen das Wasser und die Mineralstoffe aus dem Boden auf."), [Some("de")]);
    assert_eq!(of("Lo más importante es que el zapato sea cómodo desde el primer día."), [Some("es")]);
    assert_eq!(of("Il faut aussi tenir compte du fait que les prix ne changent pas toujours."), [Some("fr")]);
    assert_eq!(of("David Rheinsberg, Richard Wiedenhöft, Tom Gundersen, Anna Müller"), [None]);
    assert_eq!(of("北京有很多名胜古迹,北京有很多名胜古迹"), []);
}
