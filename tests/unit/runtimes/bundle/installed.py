"""What several tests of installing do: look at what lies below a root, and write what nobody should."""


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def list_links(root):
    return {
        name: (root / "tiny" / name).readlink().as_posix()
        for name in ("current", "previous")
        if (root / "tiny" / name).is_symlink()
    }


def overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)
