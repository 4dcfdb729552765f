//! `package`: the lines of software.

use clap::{Args, Subcommand};
use ota_domain::PackageName;
use ota_proto::admin::v1::{
    CreatePackageRequest, DeletePackageRequest, GetPackageRequest, ListPackagesRequest, Package, UpdatePackageRequest,
};
use prost_types::FieldMask;

use crate::{
    error::{Failure, promised},
    listing::{self, ListOptions, Page},
    output::{Column, Document, Resource},
    reference::short,
    session::Session,
    time,
};

/// What to do with packages.
#[derive(Debug, Subcommand)]
pub enum PackageCommand {
    /// List packages by name
    List(List),
    /// Show a package
    Get(Get),
    /// Create a package; `upload` does so by itself
    Create(Create),
    /// Change a package's description
    Update(Create),
    /// Delete a package without releases
    Delete(Delete),
}

/// Arguments of `package list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl package list\n  otactl package list -o name")]
pub struct List {
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of `package get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl package get gateway-fw")]
pub struct Get {
    /// The package
    #[arg(value_name = "PACKAGE", value_parser = parse_package)]
    package: PackageName,
}

/// Arguments of `package create` and `package update`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  otactl package create gateway-fw --description 'Firmware of the gateways'\n  otactl package update gateway-fw --description 'Firmware of all gateways'"
)]
pub struct Create {
    /// The package
    #[arg(value_name = "PACKAGE", value_parser = parse_package)]
    package: PackageName,
    /// What the package is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
}

/// Arguments of `package delete`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl package delete gateway-fw")]
pub struct Delete {
    /// The packages
    #[arg(value_name = "PACKAGE", required = true, value_parser = parse_package)]
    packages: Vec<PackageName>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Reads `gateway-fw` or `packages/gateway-fw`.
pub fn parse_package(text: &str) -> Result<PackageName, ota_domain::name::ParseNameError> {
    text.strip_prefix("packages/").unwrap_or(text).parse()
}

impl PackageCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?.packages();
        match self {
            Self::List(command) => {
                let fetch = async |page: listing::PageRequest| {
                    let request = ListPackagesRequest { page_size: page.size, page_token: page.token };
                    let answer = client.clone().list_packages(request).await?.into_inner();
                    Ok(Page { items: answer.packages, next: answer.next_page_token })
                };
                listing::show(session, &command.list, fetch).await
            }
            Self::Get(command) => {
                let request = GetPackageRequest { name: name(&command.package) };
                let package = client.clone().get_package(request).await?.into_inner().package;
                session.printer.one(&promised(package)?)
            }
            Self::Create(command) => {
                let package = Package { description: command.description, ..Package::default() };
                let request = CreatePackageRequest { package_id: command.package.to_string(), package: Some(package) };
                let package = client.clone().create_package(request).await?.into_inner().package;
                session.printer.done(&promised(package)?, "created")
            }
            Self::Update(command) => {
                let package =
                    Package { name: name(&command.package), description: command.description, ..Package::default() };
                let update_mask = Some(FieldMask { paths: vec!["description".to_owned()] });
                let request = UpdatePackageRequest { package: Some(package), update_mask };
                let package = client.clone().update_package(request).await?.into_inner().package;
                session.printer.done(&promised(package)?, "updated")
            }
            Self::Delete(command) => {
                for package in command.packages {
                    session.asker.confirm(&format!("Delete package {package}?"), command.yes)?;
                    let name = name(&package);
                    client.clone().delete_package(DeletePackageRequest { name: name.clone() }).await?;
                    session.printer.gone(&name, "deleted")?;
                }
                Ok(())
            }
        }
    }
}

fn name(package: &PackageName) -> String {
    format!("packages/{package}")
}

impl Resource for Package {
    const PLURAL: &'static str = "packages";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.Package", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("PACKAGE", |package, _| short(&package.name).into()),
            Column::new("LATEST", |package, _| package.latest_version.as_str().into()),
            Column::new("RELEASES", |package, _| package.release_count.to_string().into()),
            Column::age("AGE", |package, now| time::age(package.create_time.as_ref(), now).into()),
            Column::new("DESCRIPTION", |package, _| package.description.as_str().into()),
        ]
    }
}
