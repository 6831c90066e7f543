use super::*;

fn queued(instances: u32, threads: u32, batch: u32, delay_us: u64) -> Arrangement {
    Arrangement { class: Class::Queued { instances, threads }, batch, delay_us }
}

fn inline(batch: u32) -> Arrangement {
    Arrangement { class: Class::Inline, batch, delay_us: 0 }
}

const TEXT: &str = r#"# Owned by the fraud team.
name: "m" # not "instance_group"
max_batch_size: 8
input [ { name: "x # max_batch_size: 9" data_type: TYPE_FP32 dims: [ 4 ] } ]
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  # Agreed with the callers.
  preferred_batch_size: [ 4, 8 ]
  default_queue_policy { max_queue_size: 7 }
}
parameters { key: "team" value: { string_value: "fraud" } }
"#;

#[test]
fn what_tuning_sets_is_changed_and_the_rest_and_the_comments_stay() {
    let text = changed(TEXT, queued(2, 1, 16, 500)).unwrap();
    for kept in ["# Owned by the fraud team.", "# Agreed with the callers.", "max_queue_size: 7", "\"team\""]
    {
        assert!(text.contains(kept), "{kept} is gone:\n{text}");
    }
    for set in ["max_batch_size: 16\n", "count: 2", "max_queue_delay_microseconds: 500", THREADS] {
        assert!(text.contains(set), "{set} is not there:\n{text}");
    }
    assert!(!text.contains("preferred_batch_size"), "{text}");
    let config = parse(&text).unwrap();
    assert_eq!((config.max_batch_size, threads(&config)), (16, Some(1)));
}

#[test]
fn changing_back_and_forth_ends_where_it_was() {
    let once = changed(TEXT, queued(2, 4, 16, 500)).unwrap();
    let twice = changed(&once, inline(32)).unwrap();
    assert!(!twice.contains("instance_group [") && !twice.contains(THREADS), "{twice}");
    assert_eq!(changed(&twice, inline(32)).unwrap(), twice);
    let again = changed(&twice, queued(2, 4, 16, 500)).unwrap();
    assert_eq!(parse(&again).unwrap(), parse(&once).unwrap());
}

#[test]
fn lines_are_what_an_empty_text_becomes() {
    for arrangement in [queued(2, 1, 16, 500), queued(1, 2, 0, 0), inline(8)] {
        let text = changed("", arrangement).unwrap();
        assert_eq!(parse(&text).unwrap(), parse(&lines(arrangement)).unwrap(), "{text}");
    }
}

#[test]
fn every_spelling_of_the_text_format_is_changed_or_left_alone() {
    for text in [
        "max_batch_size:8,instance_group:[{count:1},{count:2}];dynamic_batching:{}",
        "instance_group { count: 1 }\ninstance_group { count: 2 }",
        "dynamic_batching < preferred_batch_size: 4 max_queue_delay_microseconds: 7 >\nmax_batch_size: 4",
        "name: 'a' 'b' # two parts\nmax_batch_size: 4",
        "parameters [ { key: \"a\" value { string_value: \"}\" } } ]",
        "name: \"a\\\"} instance_group\"",
    ] {
        for arrangement in [queued(3, 2, 16, 500), inline(8)] {
            // None is allowed; a wrong text is not, and that is checked inside: here, that it is the same twice.
            if let Some(once) = changed(text, arrangement) {
                assert_eq!(changed(&once, arrangement).as_ref(), Some(&once), "{text}");
            }
        }
    }
    assert!(changed("instance_group { count: 1 }\ninstance_group { count: 2 }", inline(8)).is_some());
    assert!(changed("nonsense {", inline(8)).is_none());
}

#[test]
fn groups_that_say_more_than_a_count_on_the_cpu_are_not_silently_made_groups_of_the_cpu() {
    let of = |text: &str| beyond(&parse(&format!("instance_group [ {{ count: 2 {text} }} ]")).unwrap());
    for (text, field) in [
        ("kind: KIND_GPU", "kind"),
        ("gpus: [ 0 ]", "gpus"),
        ("rate_limiter { resources { name: \"R\" count: 1 } }", "rate_limiter"),
        ("passive: true", "passive"),
    ] {
        assert_eq!(of(text), Some(field), "{text}");
    }
    assert_eq!((of("kind: KIND_CPU"), of("kind: KIND_AUTO"), of("name: \"a\"")), (None, None, None));
}
