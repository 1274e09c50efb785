# Builds Dormer here and signs it ad hoc with the entitlement for Hypervisor.framework: what is built on a Mac is not quarantined.
# `brew install --HEAD --formula packaging/homebrew/dormer.rb` in a checkout of the repository.
class Dormer < Formula
  desc "Virtual machine for Windows 11 on Arm and every other AArch64 UEFI system"
  homepage "file://#{File.expand_path("../..", __dir__)}"
  license any_of: ["MIT", "Apache-2.0"]
  head "file://#{File.expand_path("../..", __dir__)}", using: :git, branch: "main"

  depends_on "rust" => :build
  depends_on arch: :arm64
  depends_on macos: :ventura

  def install
    system "cargo", "install", *std_cargo_args(path: "dormer")
    entitlements = buildpath/"entitlements.plist"
    entitlements.write <<~XML
      <?xml version="1.0" encoding="UTF-8"?>
      <!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
      <plist version="1.0">
      <dict>
        <key>com.apple.security.hypervisor</key>
        <true/>
      </dict>
      </plist>
    XML
    system "codesign", "--force", "--sign", "-", "--entitlements", entitlements, bin/"dormer"
  end

  test do
    assert_match "hvf", shell_output("#{bin}/dormer doctor")
  end
end
