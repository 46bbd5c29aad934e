"""What listens, as others are told."""

from composition.listening import Listening
from gateway.sockets import open_sockets
from settings import load


def test_a_port_that_the_system_chose_is_the_one_that_is_named(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('admin.bind = "127.0.0.1:0"\n')
    (sock,) = open_sockets(["127.0.0.1:0"])
    with sock:
        port = sock.getsockname()[1]
        listening = Listening(admin=[sock])
        assert listening.admin_bind(load(config, {}, [])) == f"127.0.0.1:{port}"
        assert listening.admin_urls() == f"http://127.0.0.1:{port}"
