"""What can be set about `promote`; in the registry's room, as `detect_changes` reads it too."""

from llm2llm.components.shared.registry.settings import PromoteSettings as PromoteSettings
