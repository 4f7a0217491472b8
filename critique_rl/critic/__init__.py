"""Who writes critiques: the contract of a critic, the kinds there are, and how a `critic:` section
becomes one.
"""

from critique_rl._lazy import lazy

__getattr__ = lazy(
    __name__,
    {
        "build_critic": "critique_rl.critic.build",
        "Critic": "critique_rl.critic.contract",
        "Chat": "critique_rl.critic.contract",
        "ChatCritic": "critique_rl.critic.chat_critic",
        "UserCritic": "critique_rl.critic.user_critic",
        "RetryCritic": "critique_rl.critic.controls",
        "TemplateCritic": "critique_rl.critic.controls",
        "OracleCritic": "critique_rl.critic.controls",
        "ShuffledCritic": "critique_rl.critic.controls",
        "NoisyCritic": "critique_rl.critic.controls",
        "ApiChat": "critique_rl.critic.chat",
        "LocalChat": "critique_rl.critic.chat",
        "PolicyChat": "critique_rl.critic.chat",
        "Endpoint": "critique_rl.critic.api.endpoint",
        "Caps": "critique_rl.critic.api.endpoint",
    },
)
