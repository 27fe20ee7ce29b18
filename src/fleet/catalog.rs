//! The processes that run while somebody logs on to Windows: names that anybody can see in a task manager.
//!
//! Three lists: the fixed beginning of every logon, what starts below it, and what is started by services outside of
//! the logon, whose parents are therefore never sent. A `#` in the arguments stands for a random hexadecimal digit.

/// One program.
#[derive(Debug)]
pub(super) struct Program {
    /// Image name.
    pub(super) name: &'static str,
    /// Folder, with the trailing backslash.
    pub(super) folder: &'static str,
    /// uberAgent's application id.
    pub(super) app_id: &'static str,
    /// The application's version; empty for parts of Windows.
    pub(super) version: &'static str,
    /// uberAgent's phase label.
    pub(super) phase: &'static str,
    /// Image name of the parent.
    pub(super) parent: &'static str,
    /// Arguments of the command line.
    pub(super) arguments: &'static str,
    /// Runs until the rows are emitted, instead of ending soon.
    pub(super) stays: bool,
    /// A session has one of it at most.
    pub(super) single: bool,
}

const SYSTEM: &str = r"C:\Windows\System32\";
const OFFICE: &str = r"C:\Program Files\Microsoft Office\root\Office16\";
const EDGE: &str = r"C:\Program Files (x86)\Microsoft\EdgeWebView\Application\136.0.3240.64\";
const TEAMS: &str = r"C:\Program Files\WindowsApps\MSTeams_25094.310.3616.953_x64__8wekyb3d8bbwe\";
const ACTIVE_SETUP: &str = r"/UserInstall {########-####-####-####-############} /quiet";
const WEBVIEW: &str = r"--type=renderer --string-annotations --user-data-dir=EBWebView --lang=de --mojo-platform-channel-handle=#### --field-trial-handle=####";

const fn program(name: &'static str, folder: &'static str, parent: &'static str) -> Program {
    let (app_id, version, phase, arguments) = ("MsWnOS", "", "Other", "");
    Program { name, folder, app_id, version, phase, parent, arguments, stays: true, single: false }
}

const fn setup(name: &'static str, parent: &'static str, stays: bool) -> Program {
    Program { phase: "Session setup", stays, ..program(name, SYSTEM, parent) }
}

const fn brief(phase: &'static str, name: &'static str, parent: &'static str, arguments: &'static str) -> Program {
    Program { phase, arguments, stays: false, ..program(name, SYSTEM, parent) }
}

const fn service(name: &'static str, arguments: &'static str) -> Program {
    Program { arguments, ..program(name, SYSTEM, "svchost.exe") }
}

/// The beginning of every logon, each after its parent. The first is started by the system's own smss.exe.
pub(super) const BEGINNING: &[Program] = &[
    Program { arguments: "000000d8 00000084", ..setup("smss.exe", "smss.exe", false) },
    Program {
        arguments: r"ObjectDirectory=\Windows SharedSection=1024,20480,768 Windows=On SubSystemType=Windows",
        ..setup("csrss.exe", "smss.exe", true)
    },
    setup("winlogon.exe", "smss.exe", true),
    Program {
        arguments: "/flags:0x2 /state0:0x######## /state1:0x########",
        ..setup("LogonUI.exe", "winlogon.exe", false)
    },
    setup("fontdrvhost.exe", "winlogon.exe", true),
    setup("dwm.exe", "winlogon.exe", true),
    Program { phase: "Userinit", ..setup("userinit.exe", "winlogon.exe", false) },
    Program { phase: "Shell", folder: r"C:\Windows\", arguments: "", ..setup("explorer.exe", "userinit.exe", true) },
];

/// What starts below the beginning. A program may appear twice to come twice as often.
pub(super) const INSIDE: &[Program] = &[
    brief("AppSetup", "cmd.exe", "userinit.exe", r"/c \\corp.example\netlogon\logon.cmd /site #### /profile roaming"),
    brief("AppSetup", "gpscript.exe", "userinit.exe", "/Logon"),
    brief("AppSetup", "conhost.exe", "cmd.exe", "0xffffffff -ForceV1"),
    brief("AppSetup", "net.exe", "cmd.exe", r"use H: \\files0#.corp.example\home$ /persistent:no"),
    brief("AppSetup", "reg.exe", "cmd.exe", r"add HKCU\Software\Corp\Desktop /v LastLogon /t REG_SZ /d ######## /f"),
    brief(
        "AppSetup",
        "powershell.exe",
        "cmd.exe",
        r"-NoProfile -ExecutionPolicy RemoteSigned -File C:\ProgramData\Corp\Scripts\map-printers.ps1",
    ),
    brief("AppSetup", "conhost.exe", "powershell.exe", "0x# -ForceV1"),
    brief("Run once", "ie4uinit.exe", "explorer.exe", "-UserConfig"),
    brief("Run once", "unregmp2.exe", "explorer.exe", "/FirstLogon /Shortcuts /RegBrowsers /ResetMUI"),
    brief("Run once", "rundll32.exe", "explorer.exe", r"iesetup.dll,IEHardenUser ########"),
    brief("Run once", "setup.exe", "explorer.exe", ACTIVE_SETUP),
    brief("Run once", "regsvr32.exe", "explorer.exe", r"/s /n /i:/UserInstall C:\Windows\System32\themeui.dll"),
    Program {
        app_id: "MsTms",
        version: "25094.310.3616.953",
        folder: TEAMS,
        arguments: "msteams:system-initiated",
        single: true,
        ..program("ms-teams.exe", "", "explorer.exe")
    },
    Program {
        app_id: "MsEdgWbVw2",
        version: "136.0.3240.64",
        folder: EDGE,
        arguments: WEBVIEW,
        ..program("msedgewebview2.exe", "", "ms-teams.exe")
    },
    Program {
        app_id: "MsEdgWbVw2",
        version: "136.0.3240.64",
        folder: EDGE,
        arguments: WEBVIEW,
        ..program("msedgewebview2.exe", "", "msedgewebview2.exe")
    },
    Program {
        app_id: "MsEdgWbVw2",
        version: "136.0.3240.64",
        folder: EDGE,
        arguments: WEBVIEW,
        ..program("msedgewebview2.exe", "", "OUTLOOK.EXE")
    },
    Program {
        app_id: "MsOtlk",
        version: "16.0.18730.20122",
        folder: OFFICE,
        arguments: "/recycle",
        single: true,
        ..program("OUTLOOK.EXE", "", "explorer.exe")
    },
    Program {
        app_id: "MsOnDrv",
        version: "25.065.0406.0002",
        folder: r"C:\Program Files\Microsoft OneDrive\",
        arguments: "/background",
        single: true,
        ..program("OneDrive.exe", "", "explorer.exe")
    },
    Program {
        arguments: "/Startup",
        folder: r"C:\Program Files\Corp\Desktop Agent\",
        app_id: "CrpDsktpAgnt",
        version: "4.2.1",
        single: true,
        ..program("DesktopAgent.exe", "", "explorer.exe")
    },
    Program { single: true, ..program("SecurityHealthSystray.exe", SYSTEM, "explorer.exe") },
    Program { single: true, ..program("AtBroker.exe", SYSTEM, "winlogon.exe") },
    Program { single: true, ..program("mpnotify.exe", SYSTEM, "winlogon.exe") },
];

/// What services start for the user: the parent is not part of the logon.
pub(super) const OUTSIDE: &[Program] = &[
    Program { single: true, ..service("sihost.exe", "") },
    service("taskhostw.exe", "{########-####-####-####-############}"),
    service("taskhostw.exe", "KEYROAMING"),
    service("RuntimeBroker.exe", "-Embedding"),
    service("RuntimeBroker.exe", "-Embedding"),
    service("dllhost.exe", "/Processid:{########-####-####-####-############}"),
    service("dllhost.exe", "/Processid:{########-####-####-####-############}"),
    Program { single: true, ..service("ctfmon.exe", "") },
    Program { single: true, ..service("smartscreen.exe", "-Embedding") },
    Program { single: true, ..service("ApplicationFrameHost.exe", "-Embedding") },
    Program { single: true, ..service("UserOOBEBroker.exe", "-Embedding") },
    brief("Other", "backgroundTaskHost.exe", "svchost.exe", "-ServerName:App.AppX##########################.mca"),
    brief("Other", "WMIADAP.exe", "svchost.exe", "/F /T /R"),
    Program {
        folder: r"C:\Windows\SystemApps\Microsoft.Windows.StartMenuExperienceHost_cw5n1h2txyewy\",
        arguments: "-ServerName:App.AppXywbrabmsek0gm3tkwpr5kwzbs55tkqay.mca",
        single: true,
        ..service("StartMenuExperienceHost.exe", "")
    },
    Program {
        folder: r"C:\Windows\SystemApps\ShellExperienceHost_cw5n1h2txyewy\",
        arguments: "-ServerName:App.AppXtk181tbxbce2qsex02s8tw7hfxa9xb3t.mca",
        single: true,
        ..service("ShellExperienceHost.exe", "")
    },
    Program {
        app_id: "Svc:CDPUserSvc",
        parent: "services.exe",
        ..service("svchost.exe", "-k UnistackSvcGroup -s CDPUserSvc")
    },
    Program {
        app_id: "Svc:WpnUserService",
        parent: "services.exe",
        ..service("svchost.exe", "-k UnistackSvcGroup -s WpnUserService")
    },
    Program {
        app_id: "CrpPrflMgr",
        version: "24.9.1",
        phase: "AppSetup",
        folder: r"C:\Program Files\Corp\Profile Manager\",
        parent: "UserProfileManager.exe",
        ..service("ProfileTool.exe", "/Sync /Session:##")
    },
];

/// What runs while somebody logs off, below winlogon.exe or below services.
pub(super) const LOGOFF: &[Program] = &[
    brief("AppTeardown", "gpscript.exe", "winlogon.exe", "/Logoff"),
    brief("AppTeardown", "cmd.exe", "winlogon.exe", r"/c \\corp.example\netlogon\logoff.cmd"),
    brief("Other", "rundll32.exe", "winlogon.exe", "shell32.dll,SHCreateLocalServerRunDll {########-####-####}"),
    brief("Other", "taskhostw.exe", "svchost.exe", "RoamingCredentials"),
    brief("Other", "dllhost.exe", "svchost.exe", "/Processid:{########-####-####-####-############}"),
    brief(
        "Other",
        "WUDFHost.exe",
        "services.exe",
        "-HostGUID:{########-####-####-####-############} -IoEventPortName:UMDFCommunicationPorts",
    ),
    brief("Other", "backgroundTaskHost.exe", "svchost.exe", "-ServerName:App.AppX##########################.mca"),
    brief("AppTeardown", "OneDrive.exe", "explorer.exe", "/shutdown"),
];
