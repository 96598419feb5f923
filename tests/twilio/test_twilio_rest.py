"""Commands to Twilio's REST API, its emulator, and the callbacks that follow."""

import asyncio
import logging

import aiohttp
import pytest
from aiohttp import web
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio_phone import ACCOUNT, TOKEN, Document, new_sid, phone_line, until

from dialog.errors import CarrierError, ConfigurationError, MissingPublicURL
from dialog.testing.server import EmulatorServer, Faults
from dialog.testing.twilio_rest import CallUpdate, TwilioRestEmulator
from dialog.voip.call import CallSettings
from dialog.voip.twilio import TwilioGateway
from dialog.voip.twilio.rest import TwilioRest, _carrier_error, _import_sdk
from dialog.voip.voip import VoIP

WAV = b"RIFF" + b"\x07" * 200_000


@pytest.fixture
async def account():
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN, api_key="SK1", api_secret="s") as emulator:
        yield emulator


@pytest.fixture
async def rest(account):
    commands = TwilioRest(ACCOUNT, TOKEN, base_url=account.url, retry_s=0.01, timeout_s=5)
    yield commands
    await commands.close()


# The emulator, seen by the official client


@pytest.fixture
async def client(account):
    http = _import_sdk()[1]()
    client = Client(ACCOUNT, TOKEN, http_client=http, environment={"TWILIO_REGION": ""})
    client.api.base_url = account.url
    yield client
    await http.close()


async def test_the_official_client_understands_the_emulator(account, client):
    made = await client.calls.create_async(to="+15551230009", from_="+15551230002", twiml="<Response/>")
    assert (made.status, made.direction, made.to) == ("queued", "outbound-api", "+15551230009")
    [listed] = await client.calls.list_async(to="+15551230009", from_="+15551230002", limit=5)
    assert (listed.sid, await client.calls.list_async(to="+15551230008")) == (made.sid, [])
    account.placed[0].requested.append("https://voice.example/status?call=1")
    [event] = await client.calls(made.sid).events.list_async()
    assert event.request["url"] == "https://voice.example/status?call=1"
    updates = []
    call = account.add_call(on_update=updates.append)
    fetched = await client.calls(call.sid).fetch_async()
    assert fetched.status == "in-progress"
    assert fetched._from == "+15551230001"
    assert fetched.date_created.tzinfo is not None
    recording = await client.calls(call.sid).recordings.create_async(recording_channels="dual")
    assert (recording.status, recording.channels) == ("in-progress", 2)
    stopped = await client.calls(call.sid).recordings("Twilio.CURRENT").update_async(status="stopped")
    assert stopped.sid == recording.sid
    transcription = await client.calls(call.sid).transcriptions.create_async(transcription_engine="deepgram")
    assert transcription.status == "in-progress"
    ended = await client.calls(call.sid).transcriptions(transcription.sid).update_async(status="stopped")
    assert ended.status == "stopped"
    await client.calls(call.sid).update_async(twiml="<Response/>")
    done = await client.calls(call.sid).update_async(status="completed")
    assert done.status == "completed"
    assert updates == [
        CallUpdate(call_sid=call.sid, twiml="<Response/>"),
        CallUpdate(call_sid=call.sid, status="completed"),
    ]
    assert (await client.recordings(recording.sid).fetch_async()).status == "completed"
    assert await client.recordings(recording.sid).delete_async()
    with pytest.raises(TwilioRestException) as missing:
        await client.recordings(recording.sid).fetch_async()
    assert (missing.value.status, missing.value.code) == (404, 20404)
    with pytest.raises(TwilioRestException) as over:
        await client.calls(call.sid).update_async(status="completed")
    assert (over.value.status, over.value.code) == (400, 21220)


async def test_the_emulator_refuses_wrong_credentials_in_both_shapes(account):
    http = _import_sdk()[1]()
    client = Client(ACCOUNT, "wrong", http_client=http, environment={"TWILIO_REGION": ""})
    client.api.base_url = account.url
    for account.problem_json in (False, True):
        with pytest.raises(Exception, match=r"Authenticate|error") as refused:
            await client.calls("CA1").fetch_async()
        assert (refused.value.status, refused.value.code) == (401, 20003)
    await http.close()


async def test_callbacks_of_the_emulator_are_signed(account):
    seen = []

    class Host(EmulatorServer):
        def routes(self):
            return [web.post("/r", self.take), web.post("/t", self.take)]

        async def take(self, request):
            seen.append((str(request.url), dict(await request.post()), request.headers["X-Twilio-Signature"]))
            self.changed()
            return web.Response(status=204)

    async with Host() as host, aiohttp.ClientSession() as session:
        call = account.add_call()
        auth = {"Authorization": aiohttp.encode_basic_auth("SK1", "s")}
        base = f"{account.url}/2010-04-01/Accounts/{ACCOUNT}/Calls/{call.sid}"
        async with session.post(
            f"{base}/Recordings.json", data={"RecordingStatusCallback": host.url + "/r?call=1"}, headers=auth
        ) as response:
            assert response.status == 201
        async with session.post(
            f"{base}/Transcriptions.json", data={"StatusCallbackUrl": host.url + "/t"}, headers=auth
        ):
            pass
        account.transcribe(call.sid, "hello there", final=False)
        account.end_call(call.sid)
        await host.until(lambda: len(seen) == 4)
        validator = RequestValidator(TOKEN)
        for url, form, signature in seen:
            assert validator.validate(url, form, signature)
        forms = [form for _, form, _ in seen]
        assert {f.get("TranscriptionEvent", f.get("RecordingStatus")) for f in forms} == {
            "transcription-started",
            "transcription-content",
            "transcription-stopped",
            "completed",
        }
        await account.until(lambda: len(account.callbacks) == 4)
        assert {status for _, _, status in account.callbacks} == {204}


# TwilioRest


async def test_hanging_up_a_call_that_is_over_is_fine(account, rest):
    call = account.add_call()
    await rest.hangup(call.sid)
    assert call.status == "completed"
    await rest.hangup(call.sid)  # 400, 21220
    await rest.hangup("CAunknown")  # 404, 20404


@pytest.mark.parametrize("problem_json", [False, True])
async def test_a_refusal_names_the_call_and_what_to_do(account, rest, problem_json):
    account.problem_json = problem_json
    call = account.add_call(status="completed")
    with pytest.raises(CarrierError, match=rf"{call.sid}: redirect: .*21220.*not in progress") as refused:
        await rest.redirect(call.sid, "<Response/>")
    assert (refused.value.status, refused.value.carrier_code) == (400, 21220)
    wrong = TwilioRest(ACCOUNT, "wrong", base_url=account.url)
    with pytest.raises(CarrierError, match="check account_sid and auth_token"):
        await wrong.hangup(call.sid)
    await wrong.close()


async def test_numbers_of_callers_are_not_in_errors():
    error = TwilioRestException(400, "/x", "The 'To' number +15559990000 is not valid.", 21211)
    text = str(_carrier_error(error, "CA1", "dial"))
    assert "999" not in text
    assert "number … is not valid" in text
    assert "E.164" in text


async def test_an_api_key_is_used_instead_of_the_auth_token(account):
    async with asyncio.timeout(5):
        keyed = TwilioRest(ACCOUNT, "", api_key="SK1", api_secret="s", base_url=account.url + "/")
        call = account.add_call()
        await keyed.hangup(call.sid)
        assert call.status == "completed"
        await keyed.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"account_sid": ""},
        {"auth_token": ""},
        {"api_key": "SK1"},
        {"api_secret": "s"},
        {"base_url": "ftp://x"},
        {"account_sid": "0" * 32, "auth_token": "AC" + "0" * 32},  # swapped
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigurationError):
        TwilioRest(**{"account_sid": ACCOUNT, "auth_token": TOKEN, **settings})
    assert TOKEN not in repr(TwilioRest(ACCOUNT, TOKEN))


async def test_what_is_safe_is_tried_again(account, rest):
    call = account.add_call()
    account.faults = Faults(refuse=429, times=2)
    await rest.redirect(call.sid, "<Response/>")
    account.faults = Faults(refuse=500, times=2)
    await rest.hangup(call.sid)
    assert call.status == "completed"


async def test_what_may_have_happened_is_not_tried_again(account, rest):
    call = account.add_call()
    account.faults = Faults(refuse=500, times=1)
    with pytest.raises(CarrierError, match="500"):
        await rest.redirect(call.sid, "<Response/>")
    assert len(account.requests) == 1
    account.faults = Faults(refuse=429)
    with pytest.raises(CarrierError, match="429"):
        await rest.redirect(call.sid, "<Response/>")
    assert len(account.requests) == 4


async def test_a_command_has_a_deadline(account):
    account.faults = Faults(hang=True)
    rest = TwilioRest(ACCOUNT, TOKEN, base_url=account.url, timeout_s=0.3)
    await rest._open()
    with pytest.raises(CarrierError, match=r"no answer within 0.3 s"):
        await rest.hangup("CA1")
    await rest.close()


async def test_a_server_that_is_not_there_is_a_carrier_error():
    rest = TwilioRest(ACCOUNT, TOKEN, base_url="http://127.0.0.1:1", retry_s=0.01)
    with pytest.raises(CarrierError, match="cannot be reached"):
        await rest.hangup("CA1")
    with pytest.raises(CarrierError, match="cannot be fetched"):
        async for _ in rest.download("http://127.0.0.1:1/r"):
            pass
    await rest.close()


async def test_the_loop_goes_on_while_the_sdk_is_imported(account):
    rest = TwilioRest(ACCOUNT, TOKEN, base_url=account.url)
    call = account.add_call()
    await asyncio.gather(*(rest.hangup(call.sid) for _ in range(20)))
    assert len(account.requests) == 20
    await rest.close()


async def recorded(account, rest):
    call = account.add_call()
    sid = await rest.start_recording(call.sid, status_url="")
    account.end_call(call.sid)
    return f"{account.url}/2010-04-01/Accounts/{ACCOUNT}/Recordings/{sid}", account.recordings[sid]


async def test_a_recording_is_downloaded_in_pieces_once_it_is_there(account, rest):
    account.recording_wav = WAV
    account.media_missing = 2
    url, _ = await recorded(account, rest)
    pieces = [piece async for piece in rest.download(url)]
    assert b"".join(pieces) == WAV
    assert len(pieces) > 1
    assert account.requests[-1].query == (("RequestedChannels", "2"),)


@pytest.mark.parametrize("faults", [{"refuse": 500}, {"refuse": 502}, {"drop_after": 0}])
async def test_a_recording_is_asked_for_again_if_the_carrier_has_trouble(account, rest, faults):
    account.recording_wav = WAV
    url, _ = await recorded(account, rest)
    account.faults = Faults(times=2, **faults)
    assert b"".join([piece async for piece in rest.download(url)]) == WAV


async def test_a_mono_recording_is_downloaded_too(account, rest):
    url, recording = await recorded(account, rest)
    recording.channels = 1
    data = b"".join([piece async for piece in rest.download(url)])
    assert data[:4] == b"RIFF"


def test_the_emulators_own_recording_is_stereo_mulaw():
    emulator = TwilioRestEmulator()
    head, data = emulator.recording_wav[:46], emulator.recording_wav[46:]
    assert head[8:16] == b"WAVEfmt "
    assert int.from_bytes(head[4:8], "little") == len(emulator.recording_wav) - 8
    assert (head[20], head[22]) == (7, 2)
    assert int.from_bytes(head[42:46], "little") == len(data) == 320


async def test_credentials_do_not_go_to_another_host(account, rest):
    seen = []

    class Storage(EmulatorServer):
        def routes(self):
            return [web.get("/file", self.file), web.get("/file.wav", self.file)]

        async def file(self, request):
            seen.append(request.headers.get("Authorization"))
            return web.Response(body=WAV)

    async with Storage() as storage:
        url, _ = await recorded(account, rest)
        account.media_redirect = storage.url + "/file"
        assert b"".join([piece async for piece in rest.download(url)]) == WAV
        # Neither to a foreign address that somebody gives us directly.
        assert b"".join([piece async for piece in rest.download(storage.url + "/file")]) == WAV
        assert seen == [None, None]


async def test_a_recording_that_never_comes_is_a_carrier_error(account, rest):
    account.media_missing = 100
    url, _ = await recorded(account, rest)
    with pytest.raises(CarrierError, match="404"):
        async for _ in rest.download(url):
            pass
    account.media_missing = 0
    account.media_redirect = url + ".wav"
    with pytest.raises(CarrierError, match="redirected too often"):
        async for _ in rest.download(url):
            pass
    other = TwilioRest(ACCOUNT, "wrong", base_url=account.url)
    with pytest.raises(CarrierError, match="check the credentials"):
        async for _ in other.download(url):
            pass
    await other.close()


async def test_options_of_a_transcription_go_through(account, rest):
    call = account.add_call()
    await rest.start_transcription(
        call.sid,
        status_url="http://127.0.0.1:1/t",
        engine="deepgram",
        language="de-DE",
        options=(("SpeechModel", "nova-3"), ("PartialResults", "true")),
    )
    (transcription,) = account.transcriptions.values()
    assert transcription.form["TranscriptionEngine"] == "deepgram"
    assert transcription.form["Track"] == "both_tracks"
    assert transcription.form["LanguageCode"] == "de-DE"
    assert transcription.form["SpeechModel"] == "nova-3"
    assert transcription.form["PartialResults"] == "true"
    with pytest.raises(CarrierError, match="unknown_option"):
        await rest.start_transcription(
            call.sid, status_url="", engine="google", language="en-US", options=(("UnknownOption", "1"),)
        )


# Commands of a live call


class Line:
    """A live call: its document, socket, VoIP and resource."""

    def __init__(self, phone, rest, voip, sid, document, socket, resource):
        self.phone, self.rest, self.voip, self.sid = phone, rest, voip, sid
        self.document, self.socket, self.resource = document, socket, resource
        self.events = []
        for event in (VoIP.STREAMING_STARTED, VoIP.STREAMING_STOPPED, VoIP.ENDED):
            voip.on(event, self.events.append)

    @property
    def ends(self):
        return [e.reason for e in self.events if type(e).__name__ == "CallEnd"]

    async def post(self, url, **fields):
        status, text, _ = await self.phone.post(url, self.phone.form(self.sid, **fields))
        assert status in (200, 204), text
        return Document(text) if status == 200 else None


async def live(phone, rest, voips):
    sid = new_sid()
    resource = rest.add_call(sid)
    document = await phone.ring(sid)
    socket = await phone.stream(document, sid)
    await until(lambda: voips[-1].state == "live")
    return Line(phone, rest, voips[-1], sid, document, socket, resource)


def public(**settings):
    """A line whose webhook URL counts as public: told by a proxy that is trusted."""
    return phone_line(trust_forwarded_headers=True, **settings)


async def test_hanging_up_ends_the_call_at_twilio_and_here():
    async with phone_line() as (gateway, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.voip.hangup()
        assert line.resource.status == "completed"
        assert await line.socket.close_code() == 1000
        assert line.ends == ["agent_hangup"]
        await until(lambda: not gateway.calls)


async def test_a_hang_up_that_twilio_refuses_still_closes_the_stream_and_the_action_hangs_up():
    async with phone_line() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        rest.faults = Faults(refuse=401)
        with pytest.raises(CarrierError, match=line.sid):
            await line.voip.hangup()
        assert await line.socket.close_code() == 1000
        assert line.ends == ["agent_hangup"]
        rest.faults = Faults(times=0)
        assert (await line.post(line.document.action, CallStatus="in-progress")).verbs == ["Hangup"]


async def test_a_transfer_that_is_answered_ends_the_call():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.voip.transfer_to("+15559990000", back_within_s=20)
        dial = Document(line.resource.updates[0].twiml).root.find("Dial")
        assert dial.get("timeout") == "20"
        assert dial.find("Number").text == "+15559990000"
        await line.socket.stop()
        await until(lambda: line.voip.state == "moving")
        number = dial.find("Number").get("statusCallback")
        await line.post(number, CallSid=new_sid(), ParentCallSid=line.sid, CallStatus="ringing")
        assert line.voip.state == "moving"
        await line.post(number, CallSid=new_sid(), ParentCallSid=line.sid, CallStatus="in-progress")
        assert line.ends == ["transferred"]
        # The action comes when the two have hung up.
        assert (await line.post(dial.get("action"), DialCallStatus="completed")).verbs == ["Hangup"]


async def test_the_stop_of_a_transfer_may_overtake_its_confirmation():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)

        async def stop(update):
            await line.socket.stop()
            await until(lambda: line.voip.state != "live")

        line.resource.on_update = stop
        await line.voip.transfer_to("+15559990000")
        assert line.voip.state == "moving"
        assert not line.ends


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
async def test_a_transfer_that_fails_brings_the_caller_back(status):
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.voip.transfer_to("+15559990000", back_within_s=20)
        await line.socket.stop()
        await until(lambda: line.voip.state == "moving")
        action = Document(line.resource.updates[0].twiml).root.find("Dial").get("action")
        back = await line.post(action, DialCallStatus=status, CallStatus="in-progress")
        assert back.verbs == ["Connect"]
        await phone.stream(back, line.sid)
        await until(lambda: line.voip.state == "live")
        assert (line.events[-1].generation, line.events[-1].resumed) == (2, "transfer_failed")
        assert not line.ends


async def test_a_transfer_without_a_way_back_ends_when_it_fails():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.voip.transfer_to("+15559990000")
        await line.socket.stop()
        await until(lambda: line.voip.state == "moving")
        action = Document(line.resource.updates[0].twiml).root.find("Dial").get("action")
        assert (await line.post(action, DialCallStatus="busy", CallStatus="in-progress")).verbs == ["Hangup"]
        assert line.ends == ["transfer_failed"]


async def test_a_refused_transfer_leaves_the_call_as_it_was():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        rest.faults = Faults(refuse=400)
        with pytest.raises(CarrierError, match=line.sid):
            await line.voip.transfer_to("+15559990000")
        assert line.voip.state == "live"
        await line.socket.stop()
        await until(lambda: line.ends == ["caller_hangup"])


async def test_a_transfer_whose_answer_was_lost_takes_its_course():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        rest.faults = Faults(refuse=500)
        with pytest.raises(CarrierError, match="500"):
            await line.voip.transfer_to("+15559990000", back_within_s=20)
        rest.faults = Faults()
        await line.socket.stop()
        await until(lambda: line.voip.state == "moving")
        action = f"{phone.url}/dial?call={line.voip.metadata.call_id}&back=1"
        back = await line.post(action, DialCallStatus="busy", CallStatus="in-progress")
        await phone.stream(back, line.sid)
        await until(lambda: line.voip.state == "live")
        assert (line.events[-1].generation, line.events[-1].resumed) == (2, "transfer_failed")


async def test_a_caller_who_is_back_before_twilio_answers_stays():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)

        async def fails_at_once(update):
            await line.socket.stop()
            await until(lambda: line.voip.state == "moving")
            action = Document(update.twiml).root.find("Dial").get("action")
            back = await line.post(action, DialCallStatus="failed", CallStatus="in-progress")
            line.socket = await phone.stream(back, line.sid)
            await until(lambda: line.voip.state == "live")

        line.resource.on_update = fails_at_once
        await line.voip.transfer_to("+15559990000", back_within_s=20)
        assert (line.events[-1].generation, line.events[-1].resumed) == (2, "transfer_failed")
        await line.socket.stop()
        await until(lambda: line.ends == ["caller_hangup"])


async def test_many_digits_may_take_their_time():
    async with public() as (gateway, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.voip.send_digits("1" + "w" * 60 + "2")
        await line.socket.stop()
        await until(lambda: line.voip.state == "moving")
        call = gateway.find_call(line.voip.metadata.call_id)
        assert call._life.deadline - call.clock.now() > 40


async def test_digits_are_pressed_and_the_stream_comes_back():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.voip.send_digits("ww1#")
        play, redirect = Document(line.resource.updates[0].twiml).root
        assert play.get("digits") == "ww1#"
        await line.socket.stop()
        await until(lambda: line.voip.state == "moving")
        back = await line.post(redirect.text, CallStatus="in-progress")
        await phone.stream(back, line.sid)
        await until(lambda: line.voip.state == "live")
        assert (line.events[-1].generation, line.events[-1].resumed) == (2, "digits_sent")
        with pytest.raises(CarrierError, match="digits may be"):
            await line.voip.send_digits("call me")


async def test_a_missing_public_url_is_told_before_any_request():
    async with phone_line() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        before = len(rest.requests)
        for command in (
            line.voip.start_recording(),
            line.voip.start_transcription(),
            line.voip.transfer_to("+1"),
            line.voip.send_digits("1"),
        ):
            with pytest.raises(MissingPublicURL, match="webhook_url"):
                await command
        assert len(rest.requests) == before
        assert line.voip.state == "live"
        # With an address of one's own, none is needed.
        await line.voip.start_recording(status_url="https://other.example/recorded")
        (recording,) = rest.recordings.values()
        assert recording.callback == "https://other.example/recorded"


async def test_a_recording_is_dual_and_its_url_arrives_after_the_call():
    async with public() as (gateway, phone, rest, voips):
        line = await live(phone, rest, voips)
        urls = []
        line.voip.on(VoIP.RECORDING_URL, urls.append)
        await line.voip.start_recording()
        (recording,) = rest.recordings.values()
        assert recording.form["RecordingChannels"] == "dual"
        assert recording.callback == f"{phone.url}/recording?call={line.voip.metadata.call_id}"
        await line.socket.stop()
        await until(lambda: line.ends == ["caller_hangup"])
        assert len(gateway.calls) == 1  # the call waits for its recording
        data = bytearray()

        async def fetch():
            async for piece in line.voip.download_recording(urls[0]):
                data.extend(piece)

        line.voip.on(VoIP.RECORDING_URL, lambda _: line.voip.spawn(fetch(), "fetch"))
        rest.end_call(line.sid)
        await until(lambda: not gateway.calls)
        assert len(urls) == 1
        assert bytes(data) == rest.recording_wav
        # A late or repeated callback of a call that is gone is taken and ignored.
        url, form, status = rest.callbacks[0]
        assert status == 204
        assert await rest.callback(url, form) == 204
        assert len(urls) == 1


async def test_a_repeated_recording_callback_counts_once():
    async with public(call_settings=CallSettings(wrap_up_s=30)) as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        urls = []
        line.voip.on(VoIP.RECORDING_URL, urls.append)
        await line.voip.start_recording()
        (recording,) = rest.recordings.values()
        form = {"RecordingSid": recording.sid, "RecordingStatus": "completed", "RecordingUrl": "http://r"}
        await line.post(recording.callback, **form)
        await line.post(recording.callback, **form)
        assert urls == ["http://r"]
        errors = []
        line.voip.on(VoIP.ERROR, errors.append)
        await line.post(recording.callback, RecordingSid="RE2", RecordingStatus="absent")
        assert "absent" in str(errors[0].error)


async def test_a_recording_can_be_stopped_and_removed():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        with pytest.raises(CarrierError, match="no recording"):
            await line.voip.remove_recording()
        await line.voip.start_recording()
        (recording,) = rest.recordings.values()
        await line.voip.stop_recording()
        assert recording.status == "stopped"
        await line.voip.remove_recording()
        assert not rest.recordings
        await line.voip.remove_recording()  # gone already


async def test_a_transcription_arrives_word_by_word():
    async with public() as (gateway, phone, rest, voips):
        line = await live(phone, rest, voips)
        heard = []
        line.voip.on(VoIP.TRANSCRIPT, heard.append)
        await line.voip.start_transcription()
        (transcription,) = rest.transcriptions.values()
        assert transcription.callback == f"{phone.url}/transcription?call={line.voip.metadata.call_id}"
        rest.transcribe(line.sid, "good", final=False)
        await until(lambda: len(heard) == 2)
        rest.transcribe(line.sid, "evening", track="outbound_track")
        await until(lambda: len(heard) == 3)
        await line.socket.stop()
        rest.end_call(line.sid)
        await until(lambda: not gateway.calls)
        assert [(h.state, h.track, h.text, h.final) for h in heard] == [
            ("started", "", "", False),
            ("content", "caller", "good", False),
            ("content", "agent", "evening", True),
            ("stopped", "", "", False),
        ]
        assert heard[1].confidence == 0.95


async def test_odd_callbacks_are_answered_and_harm_nothing(caplog):
    caplog.set_level(logging.DEBUG)
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        call = f"?call={line.voip.metadata.call_id}"
        heard = []
        line.voip.on(VoIP.TRANSCRIPT, heard.append)
        await line.post(f"{phone.url}/transcription{call}", TranscriptionEvent="transcription-new")
        content = {"TranscriptionEvent": "transcription-content", "SequenceId": "2", "TranscriptionSid": "GT1"}
        for data, expected in (("{", 400), ('{"transcript":"x"}', 204)):
            form = phone.form(line.sid, **{**content, "TranscriptionData": data, "SequenceId": str(len(data))})
            status, _, _ = await phone.post(f"{phone.url}/transcription{call}", form)
            assert status == expected
        await line.post(f"{phone.url}/transcription{call}", TranscriptionEvent="transcription-error")
        assert [h.state for h in heard] == ["content", "error"]
        status, _, _ = await phone.post(f"{phone.url}/recording{call}", phone.form(line.sid))
        assert status == 400
        await line.post(f"{phone.url}/stream{call}", StreamEvent="stream-error", StreamError="31930")
        assert "31930" in caplog.text
        await line.post(f"{phone.url}/stream{call}", StreamEvent="stream-started")
        await line.post(f"{phone.url}/status{call}", CallStatus="in-progress")
        assert line.voip.state == "live"
        await line.post(f"{phone.url}/status", CallStatus="completed", CallDuration="3", SequenceNumber="4")
        assert line.ends == ["caller_hangup"]
        await line.post(f"{phone.url}/status{call}", CallStatus="completed")
        assert line.ends == ["caller_hangup"]


async def test_commands_after_the_end_raise():
    async with public(call_settings=CallSettings(settle_s=0)) as (gateway, phone, rest, voips):
        line = await live(phone, rest, voips)
        await line.socket.stop()
        await until(lambda: not gateway.calls)
        with pytest.raises(Exception, match="after dispose"):
            await line.voip.transfer_to("+1")


async def test_the_gateway_needs_no_network_to_be_made():
    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN)
    await gateway.close()
    await gateway.close()
