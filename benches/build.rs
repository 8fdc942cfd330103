//! Compiles the clients of the service, and the echo.

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anyhow<()> {
    println!("cargo::rerun-if-changed=../proto");
    println!("cargo::rerun-if-changed=proto");
    let service = [
        "entente/access/v1/access.proto",
        "entente/account/v1/account.proto",
        "entente/account/v1/verification.proto",
        "entente/directory/v1/application.proto",
        "entente/directory/v1/session.proto",
        "entente/directory/v1/tenant.proto",
        "entente/directory/v1/user.proto",
        "entente/operator/v1/staff.proto",
    ];
    compile("../proto", &service, "service.rs")?;
    compile("proto", &["echo.proto"], "echo.rs")
}

fn compile(folder: &str, files: &[&str], module: &str) -> Anyhow<()> {
    let mut compiler = protox::Compiler::new([folder])?;
    compiler.include_imports(true);
    compiler.open_files(files)?;
    let mut prost = prost_build::Config::new();
    prost.include_file(module);
    // Only options of files and fields hold these.
    prost.extern_path(".google.api.ResourceReference", "()");
    tonic_prost_build::configure()
        .build_server(module == "echo.rs")
        .compile_fds_with_config(compiler.file_descriptor_set(), prost)?;
    Ok(())
}
