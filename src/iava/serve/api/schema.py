"""Bodies of requests and responses, as OpenAI defines them. An unknown field is refused by its name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

TOP_LOGPROBS = 20
"""Largest number of alternatives for each token, as in OpenAI's API."""


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Input):
    type: Literal["text"]
    text: str


class ImageURL(_Input):
    url: str = Field(description="data:image/...;base64,..., or http(s) from a host that the server allows.")
    detail: Literal["auto"] | None = None


class ImagePart(_Input):
    type: Literal["image_url"]
    image_url: ImageURL


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Input):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[ContentPart],
        BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart]),
        Field(min_length=1),
    ]
    # The official client sends an answer back as history with all its fields.
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None


class StreamOptions(_Input):
    include_usage: bool = False


class ResponseFormat(_Input):
    type: Literal["text"]


class MethodOptions(BaseModel):
    """The decoding method of one request. Further fields are settings of the method, see `GET /v1/methods`."""

    model_config = ConfigDict(extra="allow", strict=True)

    method: str | None = Field(None, description="Default: the method of the server.")
    explain: bool = Field(False, description="Return the selected image tokens and the path of the explorer page.")


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


StopString = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ChatRequest(_Input):
    """`POST /v1/chat/completions`."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(
        None, ge=0, le=2, description="0 takes the most probable token. Default: the method decides."
    )
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1)
    stop: (
        Annotated[
            list[StopString], BeforeValidator(_as_list, json_schema_input_type=StopString | list[StopString] | None)
        ]
        | None
    ) = Field(None, max_length=4)
    seed: int | None = Field(None, ge=0, lt=2**62)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=TOP_LOGPROBS)
    user: str | None = Field(None, max_length=200, description="Written to the access log.")
    # Many clients send the one value of these that changes nothing.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    response_format: ResponseFormat | None = None
    iava: MethodOptions = MethodOptions(method=None, explain=False)


class CompareRequest(_Input):
    """`POST /v1/compare`."""

    image: str = Field(description="As `image_url.url` of a message.")
    questions: list[Annotated[str, StringConstraints(min_length=1, max_length=2000)]] = Field(
        min_length=1, max_length=8
    )
    methods: dict[str, dict[str, Any]] = Field(
        min_length=1, max_length=8, description="Settings by method. A setting that is missing has its default."
    )
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**62)


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class MethodReport(BaseModel):
    """How an answer was decoded."""

    method: str
    settings: dict[str, Any]
    selected: list[int] | None = Field(None, description="Indices of the selected image tokens.")
    page: str | None = Field(None, description="Path of the explorer page, which is removed after a while.")


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    iava: MethodReport


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["iava"] = "iava"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class SettingCard(BaseModel):
    default: Any
    description: str = Field(description="What it is and its range.")


class MethodCard(BaseModel):
    name: str
    title: str
    summary: str
    paper: str | None = Field(description="arXiv id.")
    control: bool
    cost: str
    settings: dict[str, SettingCard]


class MethodList(BaseModel):
    default: str
    data: list[MethodCard]


class ComparedAnswer(BaseModel):
    question: str
    method: str
    settings: dict[str, Any]
    text: str


class Comparison(BaseModel):
    answers: list[ComparedAnswer]
    page: str


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorObject(BaseModel):
    """What every answer other than 200 holds."""

    error: ErrorBody
