//! The program alone, without the machine around it: quick to build, to hold against the real one.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    qemu_img::main("qemu-img", &arguments)
}
