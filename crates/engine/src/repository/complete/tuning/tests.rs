use super::*;
use crate::repository::config::parse;

fn read(text: &str, device: Device) -> Result<Wishes, String> {
    wishes(&parse(text).unwrap(), &device).map_err(|misfit| misfit.to_string())
}

fn parameter(key: &str, value: &str) -> String {
    format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}")
}

#[test]
fn the_parameters_of_onnx_runtime_are_honoured_and_a_wrong_value_is_told() {
    let text = [
        parameter("intra_op_thread_count", "4"),
        parameter("inter_op_thread_count", "2"),
        parameter("execution_mode", "1"),
        parameter("enable_mem_arena", "0"),
        parameter("enable_mem_pattern", "false"),
        parameter("session.disable_prepacking", "1"),
    ];
    let wishes = read(&text.concat(), Device::Cpu).unwrap();
    let tuning = wishes.tuning;
    assert_eq!((wishes.threads, tuning.inter_threads, tuning.parallel), (Some(4), Some(2), Some(true)));
    assert_eq!((tuning.memory_arena, tuning.memory_pattern), (Some(false), Some(false)));
    assert_eq!(tuning.entries["session.disable_prepacking"], "1");
    for (key, value) in [
        ("intra_op_thread_count", "many"),
        ("intra_op_thread_count", "1025"),
        ("execution_mode", "2"),
        ("enable_mem_arena", "yes"),
        ("memory.enable_memory_arena_shrinkage", "disk:0"),
        ("share_session_between_instances", "0"),
    ] {
        let said = read(&parameter(key, value), Device::Cpu).unwrap_err();
        assert!(said.contains(key) && said.contains("; write "), "{said}");
    }
}

#[test]
fn only_arenas_that_are_there_can_shrink() {
    let text = |arenas: &str| parameter("memory.enable_memory_arena_shrinkage", arenas);
    let shrinks = |text: &str, device| read(text, device).unwrap().tuning.shrinkage;
    assert_eq!(shrinks(&text("cpu:0"), Device::Cpu).as_deref(), Some("cpu:0"));
    assert_eq!(shrinks(&text("cpu:0;gpu:1"), Device::Gpu(1)).as_deref(), Some("cpu:0;gpu:1"));
    assert!(read(&text("gpu:0"), Device::Cpu).unwrap_err().contains("it has cpu:0"));
    let off = text("cpu:0") + &parameter("enable_mem_arena", "0");
    assert!(read(&off, Device::Cpu).unwrap_err().contains("enable_mem_arena is off"));
}

#[test]
fn a_parameter_of_the_owners_own_is_carried_and_an_unknown_one_of_the_engines_is_refused() {
    assert_eq!(read(&parameter("team", "fraud"), Device::Cpu), Ok(Wishes::default()));
    let said = read(&parameter("session.disable_prepaking", "1"), Device::Cpu).unwrap_err();
    assert!(said.contains("did you mean 'session.disable_prepacking'?"), "{said}");
    assert!(
        read(&parameter("ep.context_enable", "1"), Device::Cpu).unwrap_err().contains("ep.context_enable")
    );
}

#[test]
fn the_level_of_the_graph_is_tritons() {
    let level = |level: i32| read(&format!("optimization {{ graph {{ level: {level} }} }}"), Device::Cpu);
    for (number, means) in [(-1, Level::Basic), (0, Level::All), (1, Level::Extended), (2, Level::Disabled)] {
        assert_eq!(level(number).unwrap().tuning.level, means);
    }
    assert!(level(3).unwrap_err().contains("optimization.graph.level is 3"));
}

#[test]
fn accelerators_go_with_their_device_and_take_their_parameters() {
    let text = |which: &str, name: &str| {
        format!(
            "optimization {{ execution_accelerators {{ {which}_execution_accelerator [ {{ name: \"{name}\" parameters {{ key: \"precision_mode\" value: \"FP16\" }} }} ] }} }}"
        )
    };
    let tensorrt = read(&text("gpu", "tensorrt"), Device::Gpu(1)).unwrap().tuning.accelerators;
    let kinds: Vec<_> = tensorrt.iter().map(|one| (one.kind, one.options["device_id"].as_str())).collect();
    assert_eq!(kinds, [(Provider::Tensorrt, "1"), (Provider::Cuda, "1")]);
    assert_eq!(tensorrt[0].options["trt_fp16_enable"], "1");
    let openvino = read(&text("cpu", "openvino"), Device::Cpu).unwrap().tuning.accelerators;
    assert_eq!((openvino.len(), openvino[0].kind), (1, Provider::Openvino));
    assert!(read(&text("gpu", "tensorrt"), Device::Cpu).unwrap_err().contains("KIND_GPU"));
    assert!(read(&text("cpu", "openvino"), Device::Gpu(0)).unwrap_err().contains("KIND_CPU"));
    assert!(read(&text("cpu", "mkl"), Device::Cpu).unwrap_err().contains("write openvino"));
    assert!(read(&text("gpu", "gpu_io"), Device::Gpu(0)).unwrap_err().contains("write tensorrt or cuda"));
    let limit = parameter("gpu_mem_limit", "1000");
    assert!(read(&limit, Device::Cpu).unwrap_err().contains("KIND_GPU"));
    assert_eq!(read(&limit, Device::Gpu(0)).unwrap().tuning.accelerators[0].options["gpu_mem_limit"], "1000");
}
